//! A thousand outputs without a secret in them, of the kinds that look most like one.

use std::fmt::Write as _;

use super::draw::{
    BASE58, BASE62, BASE64, BECH32, DIGITS, Draw, LOWER36, URL64, base64, hexdump, url64, wrapped,
};

type Make = fn(&mut Draw) -> String;

/// Kinds of output. Each is drawn often enough that there are a thousand in all.
const KINDS: &[(&str, Make)] = &[
    ("git log", |d| {
        (0..6).map(|_| format!("commit {}\nAuthor: A Person <a.person@example.org>\nDate:   Mon Nov 30 16:00:00 2026 +0000\n\n    {}\n\n", d.hex(40), d.words(5))).collect()
    }),
    ("git log, short", |d| {
        (0..20).map(|_| format!("{} {} (#{})\n", d.hex(9), d.words(4), d.below(9000))).collect()
    }),
    ("git blame", |d| {
        (0..10)
            .map(|n| {
                format!(
                    "^{} (A Person 2026-11-30 16:00:00 +0000 {n}) let {} = {};\n",
                    d.hex(7),
                    d.word(),
                    d.below(99)
                )
            })
            .collect()
    }),
    ("git diff", |d| {
        format!(
            "diff --git a/src/{0}.rs b/src/{0}.rs\nindex {1}..{2} 100644\n--- a/src/{0}.rs\n+++ b/src/{0}.rs\n@@ -1,4 +1,4 @@\n-let token = tokens.next();\n+let token = tokens.peek();\n",
            d.word(),
            d.hex(7),
            d.hex(7)
        )
    }),
    ("git ls-tree", |d| {
        (0..12).map(|_| format!("100644 blob {}\tsrc/{}.rs\n", d.hex(40), d.word())).collect()
    }),
    ("git bundle", |d| {
        format!(
            "From {} {}\n {} refs/heads/main\n * [new branch] token-{} -> origin/token-{}\n",
            "https://github.com/a/b",
            d.hex(40),
            d.hex(40),
            d.word(),
            d.word()
        )
    }),
    ("sha256sum", |d| (0..10).map(|_| format!("{}  target/release/{}\n", d.hex(64), d.word())).collect()),
    ("md5sum", |d| (0..10).map(|_| format!("{}  {}.tar.gz\n", d.hex(32), d.word())).collect()),
    ("sha512sum", |d| (0..4).map(|_| format!("{} *{}.iso\n", d.hex(128), d.word())).collect()),
    ("bsd digests", |d| (0..6).map(|_| format!("SHA256 ({}.zip) = {}\n", d.word(), d.hex(64))).collect()),
    ("uuids", |d| (0..12).map(|_| format!("{}\n", d.uuid())).collect()),
    ("uuid in json", |d| {
        format!(
            "{{\"id\":\"{}\",\"requestId\":\"{}\",\"traceparent\":\"00-{}-{}-01\"}}\n",
            d.uuid(),
            d.uuid(),
            d.hex(32),
            d.hex(16)
        )
    }),
    ("image", |d| {
        format!("<img src=\"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA{}\"/>\n", base64(&d.bytes(900)))
    }),
    ("image, wrapped", |d| wrapped(&format!("iVBORw0KGgoAAAANSUhEUgAA{}", base64(&d.bytes(3000))), 76)),
    ("base64 of anything", |d| wrapped(&base64(&d.bytes(5000)), 64)),
    ("base64url of anything", |d| format!("{}\n", url64(&d.bytes(700)))),
    ("base64 of nothing", |_| wrapped(&base64(&[0; 1200]), 76)),
    ("hexdump", |d| hexdump(&d.bytes(1200))),
    ("od", |d| {
        (0..20)
            .map(|n| format!("{:07o} {} {} {} {}\n", n * 16, d.hex(8), d.hex(8), d.hex(8), d.hex(8)))
            .collect()
    }),
    ("Cargo.lock", |d| {
        (0..8).map(|_| format!("[[package]]\nname = \"{}\"\nversion = \"1.0.{}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{}\"\n\n", d.word(), d.below(300), d.hex(64))).collect()
    }),
    ("package-lock", |d| {
        (0..8).map(|_| format!("    \"node_modules/{0}\": {{\n      \"version\": \"4.17.{1}\",\n      \"resolved\": \"https://registry.npmjs.org/{0}/-/{0}-4.17.{1}.tgz\",\n      \"integrity\": \"sha512-{2}\",\n      \"license\": \"MIT\"\n    }},\n", d.word(), d.below(99), base64(&d.bytes(64)))).collect()
    }),
    ("yarn.lock", |d| {
        (0..6).map(|_| format!("{0}@^1.2.3:\n  version \"1.2.3\"\n  resolved \"https://registry.yarnpkg.com/{0}/-/{0}-1.2.3.tgz#{1}\"\n  integrity sha1-{2}\n\n", d.word(), d.hex(40), base64(&d.bytes(20)))).collect()
    }),
    ("go.sum", |d| {
        (0..10)
            .map(|_| {
                format!(
                    "github.com/{}/{} v1.4.{} h1:{}\n",
                    d.word(),
                    d.word(),
                    d.below(30),
                    base64(&d.bytes(32))
                )
            })
            .collect()
    }),
    ("poetry.lock", |d| {
        (0..6)
            .map(|_| {
                format!(
                    "    {{file = \"{}-2.0-py3-none-any.whl\", hash = \"sha256:{}\"}},\n",
                    d.word(),
                    d.hex(64)
                )
            })
            .collect()
    }),
    ("requirements", |d| {
        (0..6)
            .map(|_| format!("{}==1.{}.0 \\\n    --hash=sha256:{}\n", d.word(), d.below(30), d.hex(64)))
            .collect()
    }),
    ("gemfile.lock", |d| {
        format!(
            "GEM\n  specs:\n    {} (1.2.3)\n\nCHECKSUMS\n  {} (1.2.3) sha256={}\n",
            d.word(),
            d.word(),
            d.hex(64)
        )
    }),
    ("flake.lock", |d| {
        format!(
            "{{\"locked\": {{\"lastModified\": 1700000000, \"narHash\": \"sha256-{}\", \"rev\": \"{}\"}}}}\n",
            base64(&d.bytes(32)),
            d.hex(40)
        )
    }),
    ("nix store", |d| {
        (0..8)
            .map(|_| {
                format!(
                    "/nix/store/{}-{}-1.2.3\n",
                    d.of_alphabet("0123456789abcdfghijklmnpqrsvwxyz", 32),
                    d.word()
                )
            })
            .collect()
    }),
    ("deno.lock", |d| format!("\"https://deno.land/std@0.200.0/{}.ts\": \"{}\",\n", d.word(), d.hex(64))),
    ("rust", |d| {
        format!(
            "fn {}(token: &str, key: Key) -> Result<Secret, Error> {{\n    let api_key = std::env::var(\"API_KEY\")?;\n    let password = prompt(\"password: \")?;\n    let auth = Auth::bearer(token);\n    Ok(Secret::new({}))\n}}\n",
            d.word(),
            d.below(1000)
        )
    }),
    ("python", |d| {
        format!(
            "def {}(self, api_key=None, password=None):\n    self.api_key = api_key or os.environ.get(\"OPENAI_API_KEY\")\n    token = self.tokenizer.encode(text)[{}]\n    headers = {{\"Authorization\": f\"Bearer {{self.api_key}}\"}}\n    return requests.get(url, auth=(user, password), headers=headers)\n",
            d.word(),
            d.below(99)
        )
    }),
    ("javascript", |d| {
        format!(
            "const apiKey = process.env.API_KEY_{};\nconst accessToken = await getAccessTokenSilently({{ audience: config.auth0Audience }});\nfetch(url, {{ headers: {{ authorization: `Bearer ${{accessToken}}` }} }});\n",
            d.below(9)
        )
    }),
    ("minified", |d| {
        format!(
            "!function(e,t){{\"object\"==typeof exports?module.exports=t():e.{}=t()}}(this,function(){{var a={{token:e.token,key:t.key,password:n(\"{}\")}};return a.secret=r(42),a}});\n",
            d.word(),
            d.word()
        )
    }),
    ("source map", |d| {
        format!(
            "{{\"version\":3,\"sources\":[\"{}.ts\"],\"names\":[],\"mappings\":\"AAAA,{};AACA,{};{}\"}}\n",
            d.word(),
            d.of_alphabet(BASE62, 60),
            d.of_alphabet(BASE62, 40),
            d.of_alphabet(BASE62, 80)
        )
    }),
    ("go code", |d| {
        format!(
            "func New{}(secretKey string) *Client {{\n\treturn &Client{{token: token, password: cfg.Password, secret: secretKey}}\n}}\n",
            d.word()
        )
    }),
    ("java", |d| {
        format!(
            "private static final String SECRET_KEY_PROPERTY = \"spring.security.oauth2.client.registration.{}.client-secret\";\nString password = credentials.getPassword();\n",
            d.word()
        )
    }),
    ("ssh fingerprints", |d| {
        (0..4)
            .map(|_| {
                format!("256 SHA256:{} user@host (ED25519)\n", base64(&d.bytes(32)).trim_end_matches('='))
            })
            .collect()
    }),
    ("ssh md5 fingerprints", |d| {
        format!(
            "2048 MD5:{} host (RSA)\n",
            d.bytes(16).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
        )
    }),
    ("ssh public keys", |d| {
        format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} user@host\nssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC{} user@host\n",
            base64(&d.bytes(32)).trim_end_matches('='),
            base64(&d.bytes(387))
        )
    }),
    ("known_hosts", |d| {
        format!(
            "|1|{}|{} ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBB{}=\n",
            base64(&d.bytes(20)),
            base64(&d.bytes(20)),
            d.of_alphabet(BASE64, 86)
        )
    }),
    ("certificate", |d| {
        format!(
            "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ\n{}-----END CERTIFICATE-----\n",
            wrapped(&base64(&d.bytes(800)), 64)
        )
    }),
    ("public key", |d| {
        format!(
            "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA{}{}-----END PUBLIC KEY-----\n",
            d.of_alphabet(BASE62, 20),
            format_args!("\n{}", wrapped(&base64(&d.bytes(250)), 64))
        )
    }),
    ("signing request", |d| {
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}-----END CERTIFICATE REQUEST-----\n",
            wrapped(&format!("MIICijCCAXICAQAwRTELMAkGA1UEBhMCQVUx{}", base64(&d.bytes(500))), 64)
        )
    }),
    ("pgp public key", |d| {
        format!(
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF{}={}\n-----END PGP PUBLIC KEY BLOCK-----\n",
            wrapped(&base64(&d.bytes(600)), 64),
            d.of_alphabet(BASE62, 4)
        )
    }),
    ("pgp signature", |d| {
        format!(
            "-----BEGIN PGP SIGNATURE-----\n\niQIzBAABCgAdFiEE{}-----END PGP SIGNATURE-----\n",
            wrapped(&base64(&d.bytes(500)), 64)
        )
    }),
    ("gpg list", |d| {
        format!(
            "pub   rsa4096 2020-01-01 [SC]\n      {}\nuid           [ultimate] A Person <a@example.org>\nKey fingerprint = {}\n",
            d.hex(40).to_uppercase(),
            (0..10).map(|_| d.hex(4).to_uppercase()).collect::<Vec<_>>().join(" ")
        )
    }),
    ("openssl x509", |d| {
        format!(
            "        Serial Number:\n            {}\n        Modulus:\n            00:{}\n",
            d.bytes(16).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"),
            d.bytes(60).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
        )
    }),
    ("nginx log", |d| {
        (0..8).map(|_| format!("10.0.0.{} - - [30/Nov/2026:16:00:00 +0000] \"GET /static/{}.{}.js?v={} HTTP/1.1\" 200 {} \"-\" \"Mozilla/5.0\"\n", d.below(255), d.word(), d.hex(20), d.hex(8), d.below(90_000))).collect()
    }),
    ("journal", |d| {
        (0..8).map(|_| format!("Nov 30 16:00:00 host sshd[{}]: Accepted publickey for me from 10.0.0.2 port {} ssh2: ED25519 SHA256:{}\n", d.below(9999), d.below(60_000), base64(&d.bytes(32)).trim_end_matches('='))).collect()
    }),
    ("json log", |d| {
        (0..6).map(|_| format!("{{\"ts\":\"2026-11-30T16:00:00.{}Z\",\"level\":\"info\",\"msg\":\"{}\",\"trace_id\":\"{}\",\"span_id\":\"{}\"}}\n", d.below(999), d.words(3), d.hex(32), d.hex(16))).collect()
    }),
    ("docker images", |d| {
        (0..6)
            .map(|_| {
                format!(
                    "registry.example.org/{}/{}@sha256:{}   {}   2 weeks ago   {}MB\n",
                    d.word(),
                    d.word(),
                    d.hex(64),
                    d.hex(12),
                    d.below(900)
                )
            })
            .collect()
    }),
    ("docker build", |d| {
        (0..8)
            .map(|n| {
                format!(
                    "#{n} sha256:{} {}MB / {}MB 0.{}s done\n",
                    d.hex(64),
                    d.below(90),
                    d.below(90),
                    d.below(9)
                )
            })
            .collect()
    }),
    ("kubectl", |d| {
        (0..8)
            .map(|_| {
                format!(
                    "{}-{}-{}   1/1   Running   0   {}d\n",
                    d.word(),
                    d.of_alphabet("bcdfghjklmnpqrstvwxz2456789", 10),
                    d.of_alphabet("bcdfghjklmnpqrstvwxz2456789", 5),
                    d.below(99)
                )
            })
            .collect()
    }),
    ("kubectl secrets", |d| {
        (0..6)
            .map(|_| {
                format!(
                    "{}-token-{}   kubernetes.io/service-account-token   3   {}d\n",
                    d.word(),
                    d.of_alphabet(LOWER36, 5),
                    d.below(99)
                )
            })
            .collect()
    }),
    ("terraform plan", |d| {
        format!(
            "  # aws_instance.{} will be created\n  + resource \"aws_instance\" \"{}\" {{\n      + ami      = \"ami-{}\"\n      + password = (sensitive value)\n      + id       = (known after apply)\n      + key_name = \"deploy-key-2024\"\n    }}\n",
            d.word(),
            d.word(),
            d.hex(17)
        )
    }),
    ("aws ids", |d| {
        (0..6)
            .map(|_| {
                format!(
                    "i-{}  subnet-{}  sg-{}  arn:aws:iam::{}:role/{}\n",
                    d.hex(17),
                    d.hex(17),
                    d.hex(17),
                    d.of_alphabet(DIGITS, 12),
                    d.word()
                )
            })
            .collect()
    }),
    ("ls", |d| {
        (0..12)
            .map(|_| {
                format!(
                    "-rw-r--r-- 1 root root {:>8} Nov 30 16:00 {}-{}.tar.gz\n",
                    d.below(9_999_999),
                    d.word(),
                    d.hex(12)
                )
            })
            .collect()
    }),
    ("find", |d| {
        (0..12)
            .map(|_| format!("./node_modules/.cache/{}/{}/{}.json\n", d.word(), d.hex(2), d.hex(62)))
            .collect()
    }),
    ("target directory", |d| {
        (0..10).map(|_| format!("target/debug/deps/lib{}-{}.rlib\n", d.word(), d.hex(16))).collect()
    }),
    ("ps", |d| {
        (0..8).map(|_| format!("root {:>7}  0.{}  0.1  {} {} ?  Ss  16:00  0:00 /usr/sbin/{} --key-file /etc/{}/tls.key\n", d.below(99_999), d.below(9), d.below(99_999), d.below(9999), d.word(), d.word())).collect()
    }),
    ("env", |d| {
        format!(
            "HOME=/root\nPATH=/usr/local/bin:/usr/bin\nSSH_AUTH_SOCK=/tmp/ssh-{}/agent.{}\nINVOCATION_ID={}\nJOURNAL_STREAM=8:{}\nGPG_KEY={}\n",
            d.of_alphabet(BASE62, 12),
            d.below(9999),
            d.hex(32),
            d.below(99_999),
            d.hex(40).to_uppercase()
        )
    }),
    ("http headers", |d| {
        format!(
            "HTTP/2 200\netag: W/\"{}\"\nx-request-id: {}\ncf-ray: {}-FRA\nset-cookie: lang=en; path=/\nx-amz-id-2: {}\nstrict-transport-security: max-age=31536000\n",
            d.hex(32),
            d.uuid(),
            d.hex(16),
            base64(&d.bytes(56))
        )
    }),
    ("pages of an api", |d| {
        format!(
            "{{\"nextPageToken\":\"{}\",\"next_cursor\":\"{}\",\"continuationToken\":\"{}\",\"items\":[]}}\n",
            url64(&d.bytes(36)),
            base64(&d.bytes(24)),
            base64(&d.bytes(60))
        )
    }),
    ("usage of a model", |d| {
        format!(
            "{{\"id\":\"chatcmpl-{}\",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{}}},\"system_fingerprint\":\"fp_{}\"}}\n",
            d.of_alphabet(BASE62, 29),
            d.below(9999),
            d.below(999),
            d.below(9999),
            d.hex(10)
        )
    }),
    ("tool call ids", |d| {
        format!(
            "{{\"tool_call_id\":\"call_{}\",\"id\":\"toolu_01{}\",\"type\":\"function\"}}\n",
            d.of_alphabet(BASE62, 24),
            d.of_alphabet(BASE62, 22)
        )
    }),
    ("ids of stripe objects", |d| {
        format!(
            "cus_{}  pi_{}  ch_{}  evt_{}  price_{}\n",
            d.of_alphabet(BASE62, 14),
            d.of_alphabet(BASE62, 24),
            d.of_alphabet(BASE62, 24),
            d.of_alphabet(BASE62, 24),
            d.of_alphabet(BASE62, 24)
        )
    }),
    ("object ids", |d| {
        (0..8)
            .map(|_| {
                format!(
                    "ObjectId(\"{}\")  01{}\n",
                    d.hex(24),
                    d.of_alphabet("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 24)
                )
            })
            .collect()
    }),
    ("chain", |d| {
        format!(
            "tx 0x{} from 0x{} block {}\nbc1q{} {}\n",
            d.hex(64),
            d.hex(40),
            d.below(9_999_999),
            d.of_alphabet(BECH32, 38),
            d.of_alphabet(BASE58, 34)
        )
    }),
    ("ipfs", |d| {
        format!(
            "Qm{}\nbafybei{}\n",
            d.of_alphabet(BASE58, 44),
            d.of_alphabet("abcdefghijklmnopqrstuvwxyz234567", 52)
        )
    }),
    ("video ids", |d| {
        (0..6).map(|_| format!("https://www.youtube.com/watch?v={}\n", d.of_alphabet(URL64, 11))).collect()
    }),
    ("urls", |d| {
        (0..5)
            .map(|_| {
                format!(
                    "https://example.org/{}?id={}&sort=key&page={} ssh://git@github.com:22/{}/{}.git\n",
                    d.word(),
                    d.hex(24),
                    d.below(99),
                    d.word(),
                    d.word()
                )
            })
            .collect()
    }),
    ("csv", |d| {
        (0..10)
            .map(|_| {
                format!(
                    "{},{},{}@example.org,{:.2},2026-11-30\n",
                    d.below(99_999),
                    d.word(),
                    d.word(),
                    d.below(9999) as f64 / 7.0
                )
            })
            .collect()
    }),
    ("cargo build", |d| {
        (0..8)
            .map(|_| format!("   Compiling {} v{}.{}.{}\n", d.word(), d.below(9), d.below(99), d.below(99)))
            .collect()
    }),
    ("test run", |d| {
        (0..10)
            .map(|_| format!("test auth::{}::token_is_refused_when_{}_expired ... ok\n", d.word(), d.word()))
            .collect()
    }),
    ("traceback", |d| {
        format!(
            "Traceback (most recent call last):\n  File \"/srv/app/{0}.py\", line {1}, in authenticate\n    raise AuthenticationError(\"invalid api key\")\n{0}.AuthenticationError: Incorrect API key provided: <redacted>\n",
            d.word(),
            d.below(999)
        )
    }),
    ("backtrace", |d| {
        (0..8)
            .map(|n| {
                format!("  {n}: 0x{} - core::ops::function::FnOnce::call_once::h{}\n", d.hex(12), d.hex(16))
            })
            .collect()
    }),
    ("documentation", |_| {
        "Set `OPENAI_API_KEY=sk-...` and `GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx`.\nUse `Authorization: Bearer <YOUR_TOKEN>` or `--password-stdin`.\npostgres://user:password@localhost:5432/db\n".to_owned()
    }),
    ("configuration", |d| {
        format!(
            "database:\n  url: ${{DATABASE_URL}}\n  password: {{{{ vault_{}_password }}}}\n  passwordFile: /run/secrets/db_password\napi:\n  tokenTTL: {}s\n  secretName: {}-tls\n",
            d.word(),
            d.below(999),
            d.word()
        )
    }),
    ("workflow", |d| {
        format!(
            "env:\n  NPM_TOKEN: ${{{{ secrets.NPM_TOKEN }}}}\n  CACHE_KEY: {}-{}\nsteps:\n  - uses: actions/checkout@{}\n  - run: echo \"key=${{{{ hashFiles('**/Cargo.lock') }}}}\"\n",
            d.word(),
            d.hex(64),
            d.hex(40)
        )
    }),
    ("sql", |d| {
        format!(
            "INSERT INTO users (id, password_hash, email) VALUES ('{}', '$2b$12${}', 'a@example.org');\nCREATE INDEX idx_token_key ON tokens (token_key);\n",
            d.uuid(),
            d.of_alphabet(BASE62, 53)
        )
    }),
    ("html", |d| {
        format!(
            "<link rel=\"stylesheet\" href=\"/{}.css\" integrity=\"sha384-{}\" crossorigin=\"anonymous\"><input type=\"password\" name=\"password\" autocomplete=\"current-password\">\n",
            d.word(),
            base64(&d.bytes(48))
        )
    }),
    ("mail", |d| {
        format!(
            "Message-ID: <{}@mail.example.org>\nDKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s1;\n bh={}; b={}\nContent-Type: multipart/mixed; boundary=\"{}\"\n",
            d.of_alphabet(BASE62, 30),
            base64(&d.bytes(32)),
            base64(&d.bytes(128)),
            d.hex(28)
        )
    }),
    ("elf", |d| {
        format!(
            "    Build ID: {}\n{}: ELF 64-bit LSB pie executable, BuildID[sha1]={}, stripped\n",
            d.hex(40),
            d.word(),
            d.hex(40)
        )
    }),
    ("numbers", |d| {
        (0..10).map(|_| format!("{} {} {:e}\n", d.number(), d.below(99_999), d.number() as f64)).collect()
    }),
    ("other languages", |d| {
        format!("Ключ не найден: {}\n令牌已过期 ({})\nגישה נדחתה\nşifre yanlış\n", d.hex(12), d.below(99))
    }),
    ("colours", |d| {
        format!(
            "\u{1b}[1;31merror\u{1b}[0m: cannot find value `{}` in this scope\n\u{1b}[36m  --> src/{}.rs:{}:5\u{1b}[0m\n",
            d.word(),
            d.word(),
            d.below(999)
        )
    }),
    ("progress", |d| {
        (0..12)
            .map(|n| {
                format!("\r{:>3}% [{}{}] {} KB/s", n * 8, "=".repeat(n), " ".repeat(12 - n), d.below(9999))
            })
            .collect()
    }),
    ("binary", |d| String::from_utf8_lossy(&d.bytes(800)).into_owned()),
    ("prose", |d| {
        (0..8)
            .map(|_| {
                format!(
                    "The {} of the {} is a secret; its password, token or key is kept by the {}.\n",
                    d.word(),
                    d.word(),
                    d.word()
                )
            })
            .collect()
    }),
];

/// Name and text of each.
pub fn all() -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    let rounds = 1000_usize.div_ceil(KINDS.len());
    for round in 0..rounds {
        for (number, (name, make)) in KINDS.iter().enumerate() {
            let mut draw = Draw::of((round * 1000 + number + 1) as u64);
            let mut text = make(&mut draw);
            if round % 3 == 1 {
                // As `grep -n` and `cat -n` show it.
                text = text.lines().enumerate().fold(String::new(), |mut out, (at, line)| {
                    writeln!(out, "{:>6}\t{line}", at + 1).unwrap();
                    out
                });
            }
            outputs.push((format!("{name} {round}"), text));
        }
    }
    outputs
}
