//! Configuration of the two servers and of their authority.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{AUTHSERV, BOT, PASSWORD, Ports, run};

/// Makes an authority and a certificate for `localhost` and 127.0.0.1.
pub(super) fn certificates(directory: &Path) {
    let tls = directory.join("tls");
    fs::create_dir(&tls).unwrap();
    let openssl =
        |arguments: &[&str]| run(Command::new("/usr/bin/openssl").args(arguments).current_dir(&tls));
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = [
        "req",
        "-x509",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "30",
        "-subj",
        "/CN=test authority",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ];
    openssl(&[&authority[..], &key[..]].concat());
    openssl(
        &[&["req", "-keyout", "srv.key", "-out", "srv.csr", "-subj", "/CN=localhost"][..], &key[..]].concat(),
    );
    fs::write(
        tls.join("ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "srv.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "srv.pem",
        "-days",
        "30",
        "-extfile",
        "ext",
    ]);
}

/// Starts Dovecot in the foreground.
pub(super) fn dovecot(directory: &Path, ports: Ports, idle: bool) -> Child {
    let dir = directory.display();
    let mail = directory.join("mail");
    if !mail.exists() {
        fs::create_dir(&mail).unwrap();
        run(Command::new("/usr/bin/chown").arg("nobody:nogroup").arg(&mail));
    }
    fs::write(directory.join("passwords"), format!("{BOT}:{{PLAIN}}{PASSWORD}::::::\n")).unwrap();
    let capability = if idle { "" } else { "imap_capability = IMAP4rev1 LITERAL+ UIDPLUS" };
    let Ports { imaps, lmtp, .. } = ports;
    let config = format!(
        "base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
first_valid_uid = 1
first_valid_gid = 1
mail_uid = nobody
mail_gid = nogroup
mail_location = maildir:{dir}/mail/%u
mail_max_userip_connections = 100
disable_plaintext_auth = yes
ssl = required
ssl_cert = <{dir}/tls/srv.pem
ssl_key = <{dir}/tls/srv.key
auth_mechanisms = plain login
auth_failure_delay = 0
{capability}
passdb {{
  driver = passwd-file
  args = {dir}/passwords
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={dir}/mail/%u allow_all_users=yes
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
service auth {{
  unix_listener {dir}/sasl {{
    mode = 0666
  }}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
"
    );
    let file = directory.join("dovecot.conf");
    fs::write(&file, config).unwrap();
    server(Command::new("/usr/sbin/dovecot").arg("-F").arg("-c").arg(file), directory)
}

/// Starts Postfix in the foreground.
pub(super) fn postfix(directory: &Path, ports: Ports) -> Child {
    let dir = directory.display();
    let config = directory.join("postfix");
    for (name, owner) in [("postfix", None), ("postfix/queue", None), ("postfix/data", Some("postfix"))] {
        let path = directory.join(name);
        if !path.exists() {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            if let Some(owner) = owner {
                run(Command::new("/usr/bin/chown").arg(owner).arg(&path));
            }
        }
    }
    // What a provider finds out by SPF: the transport's sender is whom it says.
    fs::write(
        config.join("results"),
        format!("/^(.+)@(.+)$/ PREPEND Authentication-Results: {AUTHSERV}; spf=pass smtp.mailfrom=$1@$2\n"),
    )
    .unwrap();
    fs::write(
        config.join("main.cf"),
        format!(
            "compatibility_level = 3.6
queue_directory = {dir}/postfix/queue
data_directory = {dir}/postfix/data
daemon_directory = /usr/lib/postfix/sbin
command_directory = /usr/sbin
maillog_file = {dir}/postfix.log
maillog_file_prefixes = {dir}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = {AUTHSERV}
mydestination =
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.net, example.org, evil.example
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_tls_chain_files = {dir}/tls/srv.key, {dir}/tls/srv.pem
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dir}/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_client_connection_rate_limit = 0
minimal_backoff_time = 2s
maximal_backoff_time = 5s
queue_run_delay = 2s
",
            lmtp = ports.lmtp
        ),
    )
    .unwrap();
    let hand_in =
        "-o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject";
    let Ports { mx, submission, submissions, .. } = ports;
    fs::write(
        config.join("master.cf"),
        format!(
            "127.0.0.1:{mx} inet n - n - - smtpd
  -o smtpd_tls_security_level=none
  -o {{ smtpd_sender_restrictions = check_sender_access regexp:{dir}/postfix/results }}
127.0.0.1:{submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt {hand_in}
127.0.0.1:{submissions} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes {hand_in}
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"
        ),
    )
    .unwrap();
    server(Command::new("/usr/sbin/postfix").arg("-c").arg(&config).arg("start-fg"), directory)
}

fn server(command: &mut Command, directory: &Path) -> Child {
    let output = fs::OpenOptions::new().append(true).create(true).open(directory.join("output.log")).unwrap();
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}
