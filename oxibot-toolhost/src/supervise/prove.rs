//! How the wall is proven at a start: by attack, or by a pass recorded earlier for a command that does one thing.
//!
//! It runs after everything is open and before the supervisor shuts itself in, because targets have to be made and
//! removed. What is attacked and how is in `battery`; what a recorded pass has to be is in `recorded`.

use std::path::Path;
use std::time::SystemTime;

use oxibot_proto::codec;
use oxibot_proto::message::Level;
use oxibot_proto::settings::ToolhostSettings;

use super::arguments::{Purpose, Serve};
use super::attacks::Range;
use super::battery::{Battery, Unproven};
use super::log;
use super::place::Place;
use super::process;
use super::recorded::{Conditions, NotUsed, Recorded, digest_of_parts};
use super::workspace::Surroundings;
use crate::audit::key::AuditKey;
use crate::wall::attack::{Around, Targets};
use crate::wire::Profile;

/// What a start leaves for later.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// For profiles that are first used later.
    pub(crate) battery: Option<Battery>,
    /// Of a toolhost that is there to be attacked. It is ready without a proof, and takes no calls.
    pub(crate) range: Option<Range>,
}

/// Proves the wall of the default workspace, whose zygote is there.
pub(crate) fn prove(
    arguments: &Serve,
    around: &Surroundings,
    settings: &ToolhostSettings,
    places: &mut [Place],
    name: &str,
) -> Result<Proof, Unproven> {
    let level = places.first().map_or(Level::Off, Place::level);
    if level == Level::Off || arguments.purpose == Purpose::Judge {
        return Ok(Proof::default());
    }
    let recorded = match arguments.purpose {
        Purpose::OneShot => around.home.as_deref().and_then(record),
        Purpose::LongLived | Purpose::Attack | Purpose::Judge => None,
    };
    let conditions = recorded.as_ref().and_then(|_| match conditions(settings, places) {
        Ok(conditions) => Some(conditions),
        Err(why) => {
            log::always(&format!("no recorded pass is used: {why}"));
            None
        }
    });
    if let (Some(recorded), Some(conditions)) = (&recorded, &conditions) {
        match recorded.find(conditions, SystemTime::now()) {
            Ok(()) => {
                if let Some(place) = places.first_mut() {
                    place.proven_before();
                }
            }
            Err(NotUsed::None) => {}
            Err(NotUsed::Ignored(why)) => log::always(&format!("{why}; the wall is attacked again")),
        }
    }
    let proven = places.first().is_some_and(|place| place.proven().is_some());
    if proven && places.len() < 2 {
        // Nothing is left to attack, now or later.
        return Ok(Proof::default());
    }
    let mut battery = battery(around, places, name)?;
    match arguments.purpose {
        // Whoever asks for every attack wants to see which gets through.
        Purpose::Attack => {
            return Ok(Proof { battery: None, range: Some(Range::new(battery.targets)) });
        }
        Purpose::LongLived | Purpose::OneShot | Purpose::Judge => {}
    }
    if let Some(place) = places.first_mut()
        && !proven
    {
        if !battery.targets.missing().is_empty() {
            log::always(&format!("some attacks are not tried: {}", battery.missing()));
        }
        let attacks = place.prove(&battery)?;
        if let (Some(recorded), Some(conditions)) = (&recorded, conditions)
            && let Err(why) = recorded.keep(conditions, attacks, SystemTime::now())
        {
            log::always(&format!("the pass cannot be recorded: {why}"));
        }
    }
    battery.targets.keep_for_later();
    Ok(Proof { battery: Some(battery), range: None })
}

fn battery(around: &Surroundings, places: &[Place], name: &str) -> Result<Battery, Unproven> {
    let log = around.home.as_deref().map(|home| home.join("audit").join(format!("{name}.jsonl")));
    let profiles: Vec<&Profile> = places.iter().map(Place::profile).collect();
    let around = Around {
        home: around.home.as_deref(),
        config: around.config.as_deref(),
        log: log.as_deref(),
        profiles: &profiles,
    };
    let null = process::null().map_err(|error| Unproven::Failed(error.to_string()))?;
    Ok(Battery { targets: Targets::prepare(around), null })
}

/// Without a key there is no record: it could not be told from a forged one.
fn record(home: &Path) -> Option<Recorded> {
    match AuditKey::open(home) {
        Ok(key) => Some(Recorded::new(home, key)),
        Err(error) => {
            log::always(&format!("{error}; the wall is attacked at every start"));
            None
        }
    }
}

/// What holds now.
fn conditions(settings: &ToolhostSettings, places: &mut [Place]) -> Result<Conditions, String> {
    let place = places.first().ok_or("there is no workspace")?;
    let obtained = place.zygote().ok_or("there is no zygote")?.obtained();
    let boot =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| error.to_string())?;
    let kernel = nix::sys::utsname::uname().map_err(|errno| errno.to_string())?;
    let profile = codec::frame(place.profile()).map_err(|error| error.to_string())?;
    let sandbox = serde_json::to_vec(&settings.sandbox).map_err(|error| error.to_string())?;
    let limits = serde_json::to_vec(&settings.limits).map_err(|error| error.to_string())?;
    Ok(Conditions {
        boot: boot.trim().to_owned(),
        user: nix::unistd::geteuid().as_raw(),
        kernel: format!("{} {}", kernel.release().to_string_lossy(), kernel.version().to_string_lossy()),
        level: obtained.level,
        landlock_abi: obtained.landlock_abi,
        configuration: digest_of_parts(&[&profile, &sandbox, &limits]),
    })
}
