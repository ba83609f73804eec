//! Which known name was probably meant. Pure; bounded by the length of the names, never by what was typed.

/// Names longer than this are nobody's typing error, in bytes. Bounds the work for a stranger's text.
const MAX_TYPED: usize = 240;

/// The candidate nearest to `typed`, if it is near enough to be a slip: the same letters in another spelling
/// (`read-file`, `readFile`), or a few edits away.
#[must_use]
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    let lower = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let near =
                if same_letters(candidate, typed) { 0 } else { distance(&lower, &candidate.to_lowercase()) };
            (near, candidate)
        })
        .filter(|(near, candidate)| {
            let length = candidate.chars().count();
            *near <= 1_usize.saturating_add(length / 4) && *near < length
        })
        .min_by_key(|(near, _)| *near)
        .map(|(_, candidate)| candidate)
}

/// Whether two names differ only in case and in what joins their words.
#[must_use]
pub fn same_letters(one: &str, other: &str) -> bool {
    let letters = |text: &str| -> String {
        text.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' ')).collect::<String>().to_lowercase()
    };
    let (one, other) = (letters(one), letters(other));
    !one.is_empty() && one == other
}

/// Edit distance (Levenshtein) in characters, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, a) in left.chars().enumerate() {
        let mut diagonal = at;
        let mut previous = at.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = previous;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal.saturating_add(usize::from(a != *b));
            diagonal = *cell;
            previous = replaced.min(previous.saturating_add(1)).min(diagonal.saturating_add(1));
            *cell = previous;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
        assert_eq!(distance("é", "e"), 1);
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let tools = ["bash", "read_file", "list_dir", "grep"];
        assert_eq!(nearest("readFile", tools), Some("read_file"));
        assert_eq!(nearest("read-file", tools), Some("read_file"));
        assert_eq!(nearest("bsh", tools), Some("bash"));
        assert_eq!(nearest("launch_missiles", tools), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), tools), None);
        assert_eq!(nearest("", tools), None);
        let keys = ["restrictToWorkspace", "exec", "web", "disabled"];
        assert_eq!(nearest("restrictToWorkspce", keys), Some("restrictToWorkspace"));
        assert_eq!(nearest("restrict_to_workspace", keys), Some("restrictToWorkspace"));
        assert_eq!(nearest("telegram", keys), None);
    }
}
