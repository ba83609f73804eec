//! Arbitrary text as a host and as a pattern of hosts. The same properties run on stable in `proto/src/reach.rs`;
//! `cargo +nightly fuzz run reach` in `proto` searches further.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use oxibot_proto::reach::{Cover, HostName, HostPattern};

fuzz_target!(|pair: (&str, &str)| {
    let (listed, asked) = pair;
    let name = asked.parse::<HostName>();
    if let Ok(name) = &name {
        assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
        assert!(name.as_str().parse::<IpAddr>().is_err(), "{name}");
        // What reads as a number is looked up without a name server: it would give an address.
        assert!(!name.as_str().rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok()), "{name}");
    }
    if let (Ok(pattern), Ok(name)) = (listed.parse::<HostPattern>(), name)
        && pattern.covers(&name, 443) == Cover::Yes
    {
        let shown = pattern.to_string();
        let host = shown.split(':').next().unwrap_or_default();
        match host.strip_prefix("*.") {
            Some(rest) => assert!(name.as_str().ends_with(&format!(".{rest}")), "{shown} {name}"),
            None => assert_eq!(host, name.as_str()),
        }
    }
});
