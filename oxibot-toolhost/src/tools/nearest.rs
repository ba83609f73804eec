//! Which known name was probably meant. Pure; bounded by the length of the names, never by what was typed.

/// Names longer than this are nobody's typing error.
const MAX_TYPED: usize = 64;

/// The candidate nearest to `typed`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if typed.len() > MAX_TYPED {
        return None;
    }
    let plain = |name: &str| name.to_lowercase().replace(['-', '.', ' '], "_");
    let typed = plain(typed);
    candidates
        .into_iter()
        .map(|candidate| {
            let near = if !typed.is_empty() && typed.replace('_', "") == candidate.replace('_', "") {
                0
            } else {
                distance(&typed, candidate)
            };
            (near, candidate)
        })
        .filter(|(near, candidate)| *near <= 2.max(candidate.len() / 3) && *near < candidate.len())
        .min_by_key(|(near, _)| *near)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in bytes, one row at a time.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut previous = i.saturating_add(1);
        if let Some(first) = row.first_mut() {
            *first = previous;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(right.bytes()) {
            let replaced = diagonal.saturating_add(usize::from(a != b));
            diagonal = *cell;
            previous = replaced.min(previous.saturating_add(1)).min(diagonal.saturating_add(1));
            *cell = previous;
        }
    }
    row.last().copied().unwrap_or(left.len())
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
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let names = ["bash", "read_file", "list_dir", "grep"];
        assert_eq!(nearest("readFile", names), Some("read_file"));
        assert_eq!(nearest("read-file", names), Some("read_file"));
        assert_eq!(nearest("bsh", names), Some("bash"));
        assert_eq!(nearest("launch_missiles", names), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
        assert_eq!(nearest("", names), None);
    }
}
