//! Whether a mail comes from the domain it names as its sender. Pure.
//!
//! Anyone can write anything into `From:`. What the own mail server found out about it (SPF, DKIM, DMARC) it writes into
//! `Authentication-Results` (RFC 8601) above everything else. Only the topmost such field that carries the configured
//! server's name is believed: those below it, and those of other names, may be the sender's own. A result counts only
//! where the domain that was authenticated is the domain in `From:` or one above it; `dkim=pass` of somebody else's
//! domain says nothing. A signature of a domain below does not count here, because without a list of public suffixes
//! `eve.github.io` is not told from `mail.example.org`; where it should, the server's own `dmarc=pass` says so.

/// What is known of a mail's sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Proof {
    /// The domain is proven, by this method.
    Given(&'static str),
    /// It is not, for this reason.
    Missing(&'static str),
}

/// Longest field that is read. A server's own is some hundred bytes.
const LONGEST: usize = 8192;

/// Judges the `Authentication-Results` fields of a mail, topmost first, for an address in `From:`.
pub(super) fn judge<'a>(
    fields: impl IntoIterator<Item = &'a str>,
    authserv_id: &str,
    address: &str,
) -> Proof {
    let Some((_, domain)) = address.rsplit_once('@') else { return Proof::Missing("it has no sender") };
    let ours = fields.into_iter().find_map(|field| {
        let field = field.get(..LONGEST).unwrap_or(field);
        let mut clauses = clauses(field);
        let name = clauses.next()?;
        // A version may follow the name.
        let name = name.first()?;
        name.eq_ignore_ascii_case(authserv_id.trim()).then(|| clauses.collect::<Vec<_>>())
    });
    let Some(results) = ours else {
        return Proof::Missing("there is no Authentication-Results of channels.email.authservId on it");
    };
    let results: Vec<Outcome> = results.iter().filter_map(|words| Outcome::of(words)).collect();
    if results.iter().any(|outcome| outcome.method == "dmarc" && outcome.result == "fail") {
        return Proof::Missing("the mail server says dmarc=fail");
    }
    for outcome in results.iter().filter(|outcome| outcome.result == "pass") {
        let proven = match outcome.method.as_str() {
            "dmarc" => outcome.property("header.from").is_some_and(|from| same(domain_of(from), domain)),
            "dkim" => {
                let signer = outcome.property("header.d").or_else(|| outcome.property("header.i"));
                signer.is_some_and(|signer| covers(domain_of(signer), domain))
            }
            "spf" => outcome.property("smtp.mailfrom").is_some_and(|from| covers(domain_of(from), domain)),
            // Someone who logged in at the server itself.
            "auth" => outcome.property("smtp.auth").is_some_and(|user| user.eq_ignore_ascii_case(address)),
            _ => false,
        };
        if proven {
            return Proof::Given(match outcome.method.as_str() {
                "dmarc" => "dmarc",
                "dkim" => "dkim",
                "spf" => "spf",
                _ => "auth",
            });
        }
    }
    Proof::Missing("neither SPF, DKIM nor DMARC passed for the domain in its From")
}

/// One method and what it found.
struct Outcome {
    method: String,
    result: String,
    properties: Vec<(String, String)>,
}

impl Outcome {
    fn of(words: &[String]) -> Option<Self> {
        let mut pairs = words.iter().filter_map(|word| word.split_once('='));
        let (method, result) = pairs.next()?;
        // `dkim/1` names a version of the method.
        let method = method.split('/').next().unwrap_or(method);
        Some(Self {
            method: method.to_ascii_lowercase(),
            result: result.to_ascii_lowercase(),
            properties: pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        })
    }

    /// A property that is there once. Twice with different values says nothing certain.
    fn property(&self, name: &str) -> Option<&str> {
        let mut found = self.properties.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first.as_str())
    }
}

/// Cuts a field at its semicolons, and each piece at its spaces. Comments are dropped, quotes taken off: what stands in
/// them separates nothing.
fn clauses(field: &str) -> impl Iterator<Item = Vec<String>> {
    let mut clauses: Vec<Vec<String>> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut comments = 0_usize;
    let mut quoted = false;
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        if comments > 0 {
            match character {
                '\\' => drop(characters.next()),
                '(' => comments += 1,
                ')' => comments -= 1,
                _ => {}
            }
            continue;
        }
        match character {
            '\\' if quoted => word.extend(characters.next()),
            '"' => quoted = !quoted,
            other if quoted => word.push(other),
            '(' => comments = 1,
            ';' => {
                words.push(std::mem::take(&mut word));
                clauses.push(std::mem::take(&mut words));
            }
            '=' => {
                // Spaces around it are allowed.
                if word.is_empty()
                    && let Some(last) = words.pop()
                {
                    word = last;
                }
                word.push('=');
            }
            space if space.is_ascii_whitespace() => {
                if !word.is_empty() && !word.ends_with('=') {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    // A comment or quotation without an end hides the rest: that is no result.
    if comments == 0 && !quoted {
        words.push(word);
        clauses.push(words);
    }
    clauses.into_iter().map(|words| words.into_iter().filter(|word| !word.is_empty()).collect())
}

/// What follows the last `@`, or all of it.
fn domain_of(text: &str) -> &str {
    text.rsplit_once('@').map_or(text, |(_, domain)| domain)
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

/// Whether an authenticated domain speaks for `domain`: it is it, or one above it. Whoever owns that can do with this
/// one what they like anyway. A bare top-level domain speaks for nobody.
fn covers(authenticated: &str, domain: &str) -> bool {
    let authenticated = authenticated.trim_end_matches('.').to_ascii_lowercase();
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    if !authenticated.contains('.') {
        return false;
    }
    domain == authenticated || domain.strip_suffix(&authenticated).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fields: &[&str]) -> Proof {
        judge(fields.iter().copied(), "mx.example.net", "ann@example.org")
    }

    #[test]
    fn aligned_results_of_our_own_server_are_proof() {
        for (field, method) in [
            ("mx.example.net; dmarc=pass (p=NONE dis=NONE) header.from=example.org", "dmarc"),
            ("mx.example.net; dkim=pass header.i=@example.org header.s=s1 header.b=abc", "dkim"),
            ("mx.example.net 1; dkim=pass reason=\"good; signature\" header.d=Example.ORG", "dkim"),
            (
                " MX.example.net;\r\n\tspf=pass (mx: 1.2.3.4 is permitted)\r\n smtp.mailfrom=ann@example.org",
                "spf",
            ),
            ("mx.example.net; spf=pass smtp.mailfrom=example.org", "spf"),
            ("mx.example.net; dkim = pass header.d = example.org", "dkim"),
            ("mx.example.net; auth=pass smtp.auth=ann@example.org", "auth"),
            (
                "mx.example.net; spf=fail smtp.mailfrom=evil.com; dkim=fail header.d=evil.com; dkim=pass header.d=example.org",
                "dkim",
            ),
        ] {
            assert_eq!(judged(&[field]), Proof::Given(method), "{field}");
        }
    }

    #[test]
    fn what_proves_another_domain_proves_nothing() {
        for field in [
            "mx.example.net; dkim=pass header.d=evil.com; spf=pass smtp.mailfrom=evil.com",
            "mx.example.net; dkim=pass header.d=org",
            "mx.example.net; dkim=pass header.d=ample.org",
            "mx.example.net; dkim=pass header.d=mail.example.org",
            "mx.example.net; dkim=pass header.d=example.org.evil.com",
            "mx.example.net; dkim=pass header.i=example.org@evil.com",
            "mx.example.net; dkim=pass",
            "mx.example.net; dmarc=pass header.from=evil.com",
            "mx.example.net; dmarc=pass header.from=evil.com header.from=example.org",
            "mx.example.net; spf=pass smtp.helo=example.org",
            "mx.example.net; auth=pass smtp.auth=eve@example.org",
            "mx.example.net; dkim=none; spf=softfail smtp.mailfrom=example.org; dmarc=none",
            "mx.example.net; dmarc=fail header.from=example.org; spf=pass smtp.mailfrom=example.org",
            "mx.example.net; spf=passed smtp.mailfrom=example.org",
            "mx.example.net; none",
            "mx.example.net",
            "",
        ] {
            assert!(matches!(judged(&[field]), Proof::Missing(_)), "{field}");
        }
    }

    #[test]
    fn field_of_another_server_or_below_our_own_is_the_senders_word() {
        let forged = "mx.example.net; dmarc=pass header.from=example.org";
        let honest = "mx.example.net; dmarc=fail header.from=example.org";
        assert!(matches!(judged(&[honest, forged]), Proof::Missing(_)));
        assert!(matches!(judged(&["mx.evil.com; dmarc=pass header.from=example.org"]), Proof::Missing(_)));
        assert!(matches!(
            judged(&["mx.example.net.evil.com; dmarc=pass header.from=example.org"]),
            Proof::Missing(_)
        ));
        assert_eq!(judged(&["other.example; none", forged]), Proof::Given("dmarc"));
        assert!(matches!(judged(&[]), Proof::Missing(_)));
    }

    #[test]
    fn comments_and_quotations_separate_nothing() {
        for field in [
            "mx.example.net; spf=fail (dkim=pass header.d=example.org; dmarc=pass) smtp.mailfrom=evil.com",
            "mx.example.net; spf=pass smtp.mailfrom=\"x; dmarc=pass header.from=example.org \"@evil.com",
            "mx.example.net; spf=fail (a \\) ; dkim=pass header.d=example.org",
            "(mx.example.net; dmarc=pass header.from=example.org)",
            "mx.evil.com (mx.example.net); dmarc=pass header.from=example.org",
            "mx.example.net; spf=fail reason=\"; dkim=pass header.d=example.org",
        ] {
            assert!(matches!(judged(&[field]), Proof::Missing(_)), "{field}");
        }
    }

    #[test]
    fn subdomain_is_covered_by_its_parent() {
        let field = "mx.example.net; dkim=pass header.d=example.org";
        assert_eq!(judge([field], "mx.example.net", "ann@mail.example.org"), Proof::Given("dkim"));
    }
}
