//! Who may talk. Pure: a list from the configuration, a sender, an answer.
//!
//! It is asked before anything observable happens, so a stranger sees neither typing nor a reply. An empty list admits
//! nobody. A name that its owner can give up (a Telegram user name) admits whoever has it now, so it is told apart.

use super::Sender;

/// What the list says of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Admission {
    /// By an id that is nobody else's.
    ById,
    /// By a name that may be somebody else's tomorrow.
    ByHandle,
    /// The list admits everyone.
    Everyone,
    /// Not on it.
    Stranger,
}

impl Admission {
    /// Whether they may talk.
    #[must_use]
    pub fn admitted(self) -> bool {
        match self {
            Self::ById | Self::ByHandle | Self::Everyone => true,
            Self::Stranger => false,
        }
    }
}

/// How a channel's identities are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// An opaque id: compared as it is.
    Opaque,
    /// A phone number: `+34 612-345-678`, `0034612345678` and `34612345678` are one.
    Phone,
    /// A mail address: case does not count.
    Address,
}

/// Looks a sender up.
///
/// The older systems wrote `id|name`; each part counts here too.
pub fn admit(allowed: &[String], sender: &Sender, identity: Identity) -> Admission {
    let entries = || allowed.iter().flat_map(|entry| entry.split('|')).map(str::trim);
    if entries().any(|entry| entry == "*") {
        return Admission::Everyone;
    }
    let id = normal(&sender.id, identity);
    if !id.is_empty() && entries().any(|entry| normal(entry, identity) == id) {
        return Admission::ById;
    }
    let handle = sender.handle.as_deref().map(fold).filter(|handle| !handle.is_empty());
    if let Some(handle) = handle
        && entries().any(|entry| !is_number(entry) && fold(entry) == handle)
    {
        return Admission::ByHandle;
    }
    Admission::Stranger
}

/// People the list can admit: more than one person must not share what belongs to one.
#[must_use]
pub fn people(allowed: &[String]) -> People {
    // Each part of `id|name` admits by itself, and they need not be one person's.
    let mut named: Vec<&str> = allowed
        .iter()
        .flat_map(|entry| entry.split('|'))
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    named.sort_unstable();
    named.dedup();
    match named.as_slice() {
        [] => People::Nobody,
        ["*"] => People::Many,
        [_] => People::One,
        _ => People::Many,
    }
}

/// How many people a list admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum People {
    /// Nobody.
    Nobody,
    /// One.
    One,
    /// More than one.
    Many,
}

fn normal(entry: &str, identity: Identity) -> String {
    match identity {
        Identity::Opaque => entry.trim().to_owned(),
        Identity::Phone => {
            let digits: String = entry.chars().filter(char::is_ascii_digit).collect();
            // A list that says 00 means +; no country code begins with a zero.
            digits.trim_start_matches('0').to_owned()
        }
        Identity::Address => entry.trim().to_lowercase(),
    }
}

fn fold(handle: &str) -> String {
    handle.trim().trim_start_matches('@').to_lowercase()
}

fn is_number(entry: &str) -> bool {
    !entry.is_empty() && entry.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(id: &str, handle: Option<&str>) -> Sender {
        Sender { id: id.into(), handle: handle.map(str::to_owned), name: "whoever".into() }
    }

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn empty_list_admits_nobody() {
        assert_eq!(admit(&[], &sender("1", Some("a")), Identity::Opaque), Admission::Stranger);
        assert_eq!(admit(&list(&["", " "]), &sender("", Some("")), Identity::Opaque), Admission::Stranger);
    }

    #[test]
    fn id_is_whole_and_not_a_prefix() {
        let allowed = list(&["1234"]);
        assert_eq!(admit(&allowed, &sender("1234", None), Identity::Opaque), Admission::ById);
        for other in ["123", "12345", "01234", "-1234", "1234 "] {
            let found = admit(&allowed, &sender(other, None), Identity::Opaque);
            assert_eq!(found.admitted(), other.trim() == "1234", "{other:?}");
        }
    }

    #[test]
    fn name_someone_chose_is_told_apart_from_an_id() {
        let allowed = list(&["@Alice", "99|bob"]);
        assert_eq!(admit(&allowed, &sender("5", Some("alice")), Identity::Opaque), Admission::ByHandle);
        assert_eq!(admit(&allowed, &sender("6", Some("BOB")), Identity::Opaque), Admission::ByHandle);
        assert_eq!(admit(&allowed, &sender("99", Some("eve")), Identity::Opaque), Admission::ById);
    }

    #[test]
    fn name_made_of_digits_never_passes_for_an_id() {
        let allowed = list(&["1234"]);
        assert_eq!(admit(&allowed, &sender("9", Some("1234")), Identity::Opaque), Admission::Stranger);
    }

    #[test]
    fn phone_numbers_are_one_number_however_written() {
        let allowed = list(&["+34 612-345-678"]);
        for form in ["34612345678", "+34612345678", "0034612345678", "34 612 345 678"] {
            assert!(admit(&allowed, &sender(form, None), Identity::Phone).admitted(), "{form}");
        }
        assert!(!admit(&allowed, &sender("612345678", None), Identity::Phone).admitted());
        assert!(!admit(&list(&["+"]), &sender("", None), Identity::Phone).admitted());
    }

    #[test]
    fn addresses_ignore_case_and_nothing_else() {
        let allowed = list(&["Ann@Example.org"]);
        assert!(admit(&allowed, &sender("ann@example.ORG", None), Identity::Address).admitted());
        assert!(!admit(&allowed, &sender("ann@example.org.evil.com", None), Identity::Address).admitted());
    }

    #[test]
    fn star_admits_everyone_and_means_many() {
        assert_eq!(admit(&list(&["*"]), &sender("1", None), Identity::Opaque), Admission::Everyone);
        assert_eq!(people(&list(&["*"])), People::Many);
        assert_eq!(people(&list(&["1", "1"])), People::One);
        assert_eq!(people(&list(&["1", "2"])), People::Many);
        assert_eq!(people(&[]), People::Nobody);
        assert_eq!(people(&list(&["", " "])), People::Nobody);
        assert_eq!(people(&list(&["1", " 1 "])), People::One);
    }

    #[test]
    fn id_and_name_in_one_entry_can_be_two_people() {
        let allowed = list(&["42|bob"]);
        assert!(admit(&allowed, &sender("42", Some("ada")), Identity::Opaque).admitted());
        assert!(admit(&allowed, &sender("43", Some("bob")), Identity::Opaque).admitted());
        assert_eq!(people(&allowed), People::Many);
    }
}
