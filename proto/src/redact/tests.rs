//! The engine as a whole.

use proptest::prelude::*;

use super::*;

fn redactor() -> Redactor {
    Redactor::load().unwrap()
}

fn cut(redactor: &Redactor, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let mut out = Vec::new();
    let mut at = 0;
    for cut in cuts {
        let cut = (*cut).clamp(at, text.len());
        stream.push(&text[at..cut], &mut out);
        at = cut;
    }
    stream.push(&text[at..], &mut out);
    stream.finish(&mut out);
    out
}

#[test]
fn every_rule_finds_its_examples() {
    let redactor = Redactor { shapes: Arc::new(Shapes::of(RULES).unwrap()), known: Arc::new(Known::none()) };
    assert!(redactor.rules().count() >= 200);
    let mut wrong = Vec::new();
    for shape in &redactor.shapes.shapes {
        let (yes, not) = shape.examples();
        assert!(!yes.is_empty() && !not.is_empty());
        for example in yes {
            let got = redactor.text(example);
            if got != format!("[redacted: {}]", shape.id) {
                wrong.push(format!("{}: {example} -> {got}", shape.id));
            }
        }
        for example in not {
            let got = redactor.text(example);
            if got != *example {
                wrong.push(format!("{}: not {example} -> {got}", shape.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    redactor.prove().unwrap();
}

#[test]
fn a_rule_that_misses_its_example_refuses_the_start() {
    for (rules, why) in [
        ("short ab{a2}\n  yes abcd\n  not xx", "leaves `abcd`"),
        ("one abc{a9}\n  yes abc123456789\n  not abc123456789", "it changes"),
        ("one abc{a9}\n  yes abc123456789", "wants an example"),
        ("one abc{q9}", "is no run"),
        ("one {a3}", "too many ways"),
        ("one abc{a9}\none abc{a9}", "this name is taken"),
        ("one abc{a9} maybe", "`maybe` is not known"),
        ("  yes abc", "before any rule"),
        ("one {a3+}<b", "one bounded run"),
    ] {
        let loaded = Shapes::of(rules)
            .and_then(|shapes| Redactor { shapes: Arc::new(shapes), known: Arc::new(Known::none()) }.prove());
        let error = loaded.unwrap_err().to_string();
        assert!(error.contains(why), "{error} should say {why}");
    }
}

/// Every example of every rule, in company that keys are found in, and cut at every byte.
#[test]
fn every_example_goes_wherever_the_stream_is_cut() {
    let redactor = Redactor { shapes: Arc::new(Shapes::of(RULES).unwrap()), known: Arc::new(Known::none()) };
    for shape in &redactor.shapes.shapes {
        for example in shape.examples().0 {
            for (before, after) in
                [("", ""), ("TOKEN: ", "\n"), ("a=\"", "\",\n"), ("\u{1b}[32m", "\u{1b}[0m\n"), ("é ", " é")]
            {
                let text = format!("{before}{example}{after}");
                let whole = redactor.bytes(text.as_bytes()).into_owned();
                let shown = String::from_utf8_lossy(&whole).into_owned();
                assert!(shown.contains("[redacted: "), "{}: {shown}", shape.id);
                assert!(!shown.contains(example.as_str()), "{}: {shown}", shape.id);
                assert!(shown.starts_with(before) && shown.ends_with(after), "{}: {shown}", shape.id);
                for at in 0..=text.len() {
                    let got = cut(&redactor, text.as_bytes(), &[at]);
                    assert_eq!(got, whole, "{} cut at {at}: {}", shape.id, String::from_utf8_lossy(&got));
                }
            }
        }
    }
}

#[test]
fn values_go_by_the_name_they_are_given_to() {
    let redactor = redactor();
    let key = "q8Zt3Lm0Xv7Rk2Bw9Yc5";
    for template in [
        "api_key = \"@\"",
        "API_KEY=@",
        "export STRIPE_SECRET=@",
        "  apiKey: '@',",
        "{\"access_token\":\"@\",\"expires_in\":3600}",
        "\\\"client_secret\\\":\\\"@\\\"",
        "config[\"api_key\"] = \"@\"",
        "--token @ --verbose",
        "--password=@",
        "Authorization: Bearer @",
        "curl -H 'authorization: token @' https://example.org",
        "X-Api-Key: @",
        "<password>@</password>",
        "const secretKey := `@`",
        "https://example.org/v1?api_key=@&page=2",
        "- name: API_KEY\n  value: @",
        "{\"name\": \"DB_PASSWORD\", \"value\": \"@\"}",
        "DATADOG_KEY=@",
        "db_pass: @",
        "_auth=@",
        "//registry.example.org/:_authToken=@",
        "postgres://app:@@db.example.org/app",
        "https://@@example.org/repository.git",
        "redis://:@@10.0.0.1:6379",
        "password = b'@'",
        "machine example.org login me password @",
        "token => '@'",
    ] {
        let (before, after) = template.split_once('@').unwrap();
        let text = format!("{before}{key}{after}");
        let shown = redactor.text(&text).into_owned();
        assert!(!shown.contains(key), "{text} -> {shown}");
        assert!(shown.starts_with(before) && shown.ends_with(after), "{text} -> {shown}");
        for at in 0..=text.len() {
            assert_eq!(cut(&redactor, text.as_bytes(), &[at]), shown.as_bytes(), "{text} cut at {at}");
        }
    }
}

#[test]
fn values_of_harmless_names_and_of_no_secret_stay() {
    let redactor = redactor();
    for text in [
        "api_key = os.environ[\"API_KEY\"]",
        "password: ${{ secrets.DB_PASSWORD_2024 }}",
        "token = get_token_from_header(request)",
        "export API_KEY=$OTHER_API_KEY_2",
        "nextPageToken: \"CAoQAA3f9k2Lq0zXv7Rk2\"",
        "public_key = \"q8Zt3Lm0Xv7Rk2Bw9Yc5\"",
        "\"csrfToken\":\"q8Zt3Lm0Xv7Rk2Bw9Yc5\"",
        "password=changeme",
        "api_key: YOUR_API_KEY_HERE",
        "Authorization: Bearer <token>",
        "Authorization: Bearer YOUR_ACCESS_TOKEN",
        "postgres://postgres:postgres@localhost:5432/app",
        "postgres://user:password@localhost/app",
        "https://user:${TOKEN}@example.org",
        "ssh://git@github.com/a/b.git",
        "http://localhost:8080/a@2x.png",
        "secret: /run/secrets/db_password_1",
        "token_type: bearer",
        "secretName: my-app-tls-20240101",
        "max_tokens=1234567890123456",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "key: Linux-cargo-4f2b9c01d7e83a65bf10ce92a7d4583e",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "-----BEGIN RSA PRIVATE KEY-----",
        "if pem.starts_with(\"-----BEGIN PRIVATE KEY-----\") { return parse_pkcs8_private_key_from_pem(pem) }",
    ] {
        assert_eq!(redactor.text(text), text);
    }
}

#[test]
fn basic_authorization_goes_when_it_says_user_and_password() {
    let redactor = redactor();
    assert_eq!(
        redactor.text("Authorization: Basic dXNlcjpwYXNz\n"),
        "Authorization: Basic [redacted: secret]\n"
    );
    assert_eq!(redactor.text("Authorization: Basic realm"), "Authorization: Basic realm");
}

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACDk0f2Wm7Qb9Lr3xUo6sTnVhJq1CZaYpEiGdB8tKcFwRgAAAJgRz5pXEc+a
VwAAAAtzc2gtZWQyNTUxOQAAACDk0f2Wm7Qb9Lr3xUo6sTnVhJq1CZaYpEiGdB8tKcFwRg
AAAEBq1w2e3r4t5y6u7i8o9p0aSsDdFfGgHhJjKkLlZzXxCeTR/ZabtBv0uvfFSjqxOdWE
mrUJlpikSIZ0Hy0pwXBGAAAAEHRlc3RAZXhhbXBsZS5vcmcBAgMEBQ==
-----END OPENSSH PRIVATE KEY-----
";

#[test]
fn private_keys_go_with_all_their_lines_in_every_dress() {
    let redactor = redactor();
    let wanted = "[redacted: private-key]";
    let numbered: String =
        KEY.lines().enumerate().map(|(at, line)| format!("{:>6}\t{line}\n", at + 1)).collect();
    let listed: String =
        KEY.lines().enumerate().map(|(at, line)| format!("id_rsa:{}:{line}\n", at + 1)).collect();
    let indented: String = KEY.lines().map(|line| format!("    {line}\n")).collect();
    let added: String = KEY.lines().map(|line| format!("+{line}\n")).collect();
    let dos = KEY.replace('\n', "\r\n");
    let json = format!("\"private_key\": \"{}\"", KEY.replace('\n', "\\n"));
    for (dress, before, after) in [
        (KEY.to_owned(), "", "\n"),
        (numbered, "     1\t", "\n"),
        (listed, "id_rsa:1:", "\n"),
        (indented, "    ", "\n"),
        (added, "+", "\n"),
        (dos, "", "\r\n"),
        (json, "\"private_key\": \"", "\\n\""),
    ] {
        let text = format!("first\n{dress}README.md\nsrc\n");
        let shown = redactor.text(&text).into_owned();
        assert_eq!(shown, format!("first\n{before}{wanted}{after}README.md\nsrc\n"), "of {text}");
        for at in 0..=text.len() {
            let got = cut(&redactor, text.as_bytes(), &[at]);
            assert_eq!(String::from_utf8_lossy(&got), shown, "cut at {at}");
        }
    }
}

#[test]
fn a_key_that_was_cut_off_does_not_swallow_what_follows() {
    let redactor = redactor();
    let first: String = KEY.lines().take(4).map(|line| format!("{line}\n")).collect();
    let text = format!("{first}README.md\nsrc/components/Application2Header\ntotal 12\n");
    let shown = redactor.text(&text).into_owned();
    assert_eq!(shown, "[redacted: private-key]\nREADME.md\nsrc/components/Application2Header\ntotal 12\n");
    // Without its header the key is known by how it begins.
    let body: String = KEY.lines().skip(1).map(|line| format!("{line}\n")).collect();
    assert_eq!(redactor.text(&body), "[redacted: openssh-key-body]\n");
}

#[test]
fn known_values_go_in_every_form() {
    let value = "correct horse/battery+\"staple\"";
    let redactor = redactor().knowing("channels.email.imapPassword", value);
    let label = "[redacted: channels.email.imapPassword]";
    for form in encode::forms(value.as_bytes()) {
        let text = [b"before ", form.as_slice(), b" after"].concat();
        let wanted = format!("before {label} after");
        assert_eq!(String::from_utf8_lossy(&redactor.bytes(&text)), wanted);
        for at in 0..=text.len() {
            assert_eq!(String::from_utf8_lossy(&cut(&redactor, &text, &[at])), wanted, "cut at {at}");
        }
    }
    let several = self::redactor().knowing("key", "first-line-of-it\nsecond-line-of-it\nxy");
    assert_eq!(several.text("a second-line-of-it b xy"), "a [redacted: key] b xy");
    let short = self::redactor().knowing("pin", "12345");
    assert_eq!(short.text("12345"), "12345", "shorter than what is looked for");
}

#[test]
fn a_known_value_that_the_middle_was_cut_out_of_goes_in_part() {
    let redactor = redactor().knowing("key", "alpha-beta-gamma-delta");
    let (head, tail) = redactor.ends(b"one alpha-beta-ga", b"amma-delta two");
    assert_eq!(String::from_utf8_lossy(&head), "one [redacted: cut]");
    assert_eq!(String::from_utf8_lossy(&tail), "[redacted: cut] two");
    let (head, tail) = redactor.ends(b"one two", b"three");
    assert_eq!((head.as_slice(), tail.as_slice()), (&b"one two"[..], &b"three"[..]));
}

#[test]
fn what_overlaps_goes_whole() {
    let redactor =
        redactor().knowing("one", "abcdefgh").knowing("two", "efghijkl").knowing("three", "abcdefghmn");
    assert_eq!(redactor.text("xabcdefghijkly"), "x[redacted: one]y");
    assert_eq!(redactor.text("abcdefghmn"), "[redacted: three]", "the longer of two that begin alike");
}

#[test]
fn a_stream_keeps_little_of_a_flood() {
    let redactor = redactor().knowing("key", &"k3y".repeat(100));
    for flood in [
        "eyJhbGciOiJ",
        "keykeykey",
        "sk-ant-",
        "-----BEGIN ",
        "a",
        "k3y",
        "api_key=\n",
        "://a:b",
        "MIIE",
        "\\n",
    ] {
        let mut stream = redactor.stream();
        let mut out = Vec::new();
        let chunk = flood.repeat(6000);
        for _ in 0..20 {
            out.clear();
            stream.push(chunk.as_bytes(), &mut out);
            assert!(stream.kept() < 40_000, "{flood}: {}", stream.kept());
        }
    }
}

/// Text in which everything that a rule looks at is frequent.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => "[a-zA-Z0-9]{1,8}",
        2 => "[ =:\"'\\n\\\\/@.&-]{1,3}",
        1 => prop::sample::select(vec![
            "ghp_", "sk-", "AKIA", "key", "token=", "password: ", "-----BEGIN RSA PRIVATE KEY-----\n", "://", "eyJhbGci",
            "alpha-", "alpha-beta", "-beta-gamma", "\u{1b}[31m", "\\n", "é", "Bearer ", "-----END RSA PRIVATE KEY-----\n",
            "0123456789abcdef0123456789abcdef", "q8Zt3Lm0Xv7Rk2Bw9Yc5q8Zt3Lm0Xv7Rk2Bw9Yc5", "MIIEpAIBAAKCAQEA", "xoxb-",
        ]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_gives_the_same_text(text in pieces(), cuts in prop::collection::vec(0_usize..600, 0..12)) {
        let redactor = redactor().knowing("key", "alpha-beta-gamma");
        let mut cuts = cuts;
        cuts.sort_unstable();
        let whole = redactor.bytes(text.as_bytes()).into_owned();
        let some = cut(&redactor, text.as_bytes(), &cuts);
        prop_assert_eq!(&some, &whole);
        let every: Vec<usize> = (0..text.len()).collect();
        let every = cut(&redactor, text.as_bytes(), &every);
        prop_assert_eq!(&every, &whole);
        prop_assert!(std::str::from_utf8(&whole).is_ok(), "text stays text");
        for form in encode::forms(b"alpha-beta-gamma") {
            prop_assert!(!whole.windows(form.len()).any(|window| window == form));
        }
    }

    #[test]
    fn any_bytes_pass_unchanged_or_lose_a_secret(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0_usize..600) {
        let redactor = redactor();
        let whole = redactor.bytes(&bytes).into_owned();
        let cut = cut(&redactor, &bytes, &[at]);
        prop_assert_eq!(&cut, &whole);
        if !whole.windows(11).any(|window| window == b"[redacted: ") {
            prop_assert_eq!(whole, bytes);
        }
    }
}
