//! Booting the guest and waiting for its end.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::image::Image;
use super::report::Report;

/// Memory of the guest, in MiB: the suites fill a gigabyte on purpose.
const MEMORY_MB: &str = "3072";
/// The guest's clock counts its instructions, two nanoseconds each, and follows ours only while it has nothing to do: how
/// busy this machine is lets no deadline in there pass. It costs a third of the speed.
const CLOCK: &str = "shift=1";

/// Ended with whoever holds it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the image with a second disk, and returns what the guest told until it switched itself off. `logs` is where
/// its console (`.console`) and what it told (`.results`) are kept, whatever comes of it; `directory` holds what it
/// writes to its disks, and needs no keeping.
///
/// # Errors
/// When it cannot be started or does not end in time; the error holds the end of both and says where they are.
pub fn boot(
    image: &Image,
    suites: &Path,
    directory: &Path,
    logs: &Path,
    patience: Duration,
) -> Result<Report, String> {
    let results = logs.with_extension("results");
    let console = logs.with_extension("console");
    for file in [&results, &console] {
        // Nothing of an earlier run may pass for one of this.
        match fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", file.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let drive = |path: &Path| format!("file={},format=raw,if=virtio,snapshot=on", path.display());
    // No hardware virtualisation even where there is some: the same everywhere, and it needs no permission. Dies with us.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"])
        .args(["-icount", CLOCK, "-m", MEMORY_MB, "-display", "none", "-monitor", "none", "-no-reboot"])
        // Packets that leave a call reach qemu and go no further.
        .args(["-nic", "user,restrict=on,model=virtio-net-pci"])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 mitigations=off"])
        .args(["-drive", &drive(&image.disk), "-drive", &drive(suites)])
        .args(["-device", "virtio-rng-pci", "-device", "virtio-serial"])
        .args(["-chardev", &format!("file,id=results,path={}", results.display())])
        .args(["-device", "virtserialport,chardev=results,name=oxibot.results"])
        .args(["-serial", &format!("file:{}", console.display())])
        // Writes to the disks go to files there, and away with them.
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start qemu: {error}"))?;
    let mut machine = Machine(child);
    let until = Instant::now() + patience;
    let ended = loop {
        match machine.0.try_wait() {
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
            Ok(Some(status)) => break status.success(),
            Ok(None) | Err(_) => break false,
        }
    };
    drop(machine);
    let told = String::from_utf8_lossy(&fs::read(&results).unwrap_or_default()).into_owned();
    if ended {
        return Ok(Report::read(&told));
    }
    let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    Err(format!(
        "the guest did not come to its end in {} s; its logs are {} and {}\n--- told\n{}\n--- console\n{}",
        patience.as_secs(),
        results.display(),
        console.display(),
        tail(&told),
        tail(&said)
    ))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
