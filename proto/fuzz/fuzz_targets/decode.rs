//! Arbitrary bytes into both decoders. The same property runs on stable in `proto/tests/wire_properties.rs`;
//! `cargo +nightly fuzz run decode` in `proto` searches further.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oxibot_proto::codec::{Decoder, frame};
use oxibot_proto::message::{ToMain, ToToolhost};

fuzz_target!(|bytes: &[u8]| {
    let mut to_toolhost = Decoder::<ToToolhost>::new();
    to_toolhost.push(bytes);
    while let Ok(Some(message)) = to_toolhost.next_message() {
        let mut again = Decoder::new();
        again.push(&frame(&message).expect("what was decoded can be encoded"));
        assert_eq!(again.next_message(), Ok(Some(message)));
    }
    let mut to_main = Decoder::<ToMain>::new();
    to_main.push(bytes);
    while let Ok(Some(_)) = to_main.next_message() {}
});
