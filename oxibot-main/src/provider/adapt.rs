//! Parameters that one model takes and another refuses, learned from the refusal instead of from a table.
//!
//! New models drop `temperature`, rename `max_tokens` or change how thinking is asked for, faster than any table
//! follows. A refusal that names such a parameter is answered once with a request without it; what was learned is kept
//! for the process.

use super::error::ProviderError;

/// What to leave out or write differently for one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "five independent findings, each named where it is set")]
pub(crate) struct Adaptation {
    /// Leave out the temperature.
    pub(crate) no_temperature: bool,
    /// Use the other of `max_tokens` and `max_completion_tokens`.
    pub(crate) other_tokens_field: bool,
    /// Leave out `stream_options`.
    pub(crate) no_stream_options: bool,
    /// Anthropic: use the other of adaptive and budgeted thinking.
    pub(crate) other_thinking: bool,
    /// Do not ask for an effort or for thinking.
    pub(crate) no_effort: bool,
}

impl Adaptation {
    /// What the refusal teaches beyond what is known already, if anything. Each finding is made once, so that a vendor
    /// which refuses everything is asked a bounded number of times.
    pub(crate) fn learn(self, error: &ProviderError) -> Option<Self> {
        let ProviderError::BadRequest { detail, .. } = error else { return None };
        let detail = detail.to_ascii_lowercase();
        let names = |words: &[&str]| words.iter().any(|word| detail.contains(word));
        let mut next = self;
        if names(&["max_completion_tokens"]) {
            next.other_tokens_field = true;
        } else if names(&["stream_options"]) {
            next.no_stream_options = true;
        } else if names(&["temperature"]) {
            next.no_temperature = true;
        } else if names(&["thinking", "adaptive", "budget_tokens"]) {
            if self.other_thinking {
                next.no_effort = true;
            }
            next.other_thinking = true;
        } else if names(&["reasoning", "effort", "output_config"]) {
            next.no_effort = true;
        }
        (next != self).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(detail: &str) -> ProviderError {
        ProviderError::BadRequest { provider: "p".to_owned(), status: 400, detail: detail.to_owned() }
    }

    #[test]
    fn each_finding_is_made_once() {
        for detail in [
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "Unsupported value: 'temperature' does not support 0.1",
            "body.stream_options: extra inputs are not permitted",
            "Unrecognized request argument supplied: reasoning_effort",
        ] {
            let learned = Adaptation::default().learn(&refusal(detail)).unwrap();
            assert_eq!(learned.learn(&refusal(detail)), None, "{detail}");
        }
    }

    #[test]
    fn thinking_is_tried_the_other_way_and_then_not_at_all() {
        let error = refusal("\"thinking.type.enabled\" is not supported for this model");
        let first = Adaptation::default().learn(&error).unwrap();
        assert!(first.other_thinking && !first.no_effort);
        let second = first.learn(&error).unwrap();
        assert!(second.no_effort);
        assert_eq!(second.learn(&error), None);
    }

    #[test]
    fn other_refusals_teach_nothing() {
        assert_eq!(Adaptation::default().learn(&refusal("messages: at least one is required")), None);
        assert_eq!(Adaptation::default().learn(&ProviderError::Truncated { provider: "p".to_owned() }), None);
    }
}
