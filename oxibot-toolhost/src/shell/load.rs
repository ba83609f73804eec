//! From data to a policy: the rules that come with the product, the user's, and the user's changes. Examples are run
//! here: a rule that does not do what its examples say does not load.

use std::collections::BTreeMap;

use oxibot_proto::nearest::nearest;
use oxibot_proto::settings::{self, PolicyOverride, PolicyRule, Unknown};
use serde::Deserialize;

use super::judge::judge;
use super::pattern::Pattern;
use super::rules::{BadRule, Policy};

/// The reviewed file.
pub(crate) const STANDARD: &str = include_str!("policy.json");

/// Rules a user may add, and bytes of each example: reading them must not hold up a start.
const MAX_RULES: usize = 1000;

/// The policy cannot be used. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The file that comes with the product is broken. A test loads it.
    #[error("cannot read the policy that comes with the product: {0}")]
    Standard(String),
    /// A rule makes no sense.
    #[error("cannot use rule {id}: {cause}")]
    Rule {
        /// Its id.
        id: String,
        /// What is wrong and what to do.
        cause: String,
    },
    /// A rule does not do what its example says.
    #[error("{0}")]
    Example(String),
    /// An override makes no sense.
    #[error("cannot use the override of rule {id}: {cause}")]
    Override {
        /// The rule it names.
        id: String,
        /// What is wrong and what to do.
        cause: String,
    },
}

impl From<BadRule> for PolicyError {
    fn from(BadRule { id, cause }: BadRule) -> Self {
        Self::Rule { id, cause }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Standard {
    places: BTreeMap<String, Vec<String>>,
    rules: Vec<PolicyRule>,
}

fn standard() -> Result<Standard, PolicyError> {
    serde_json::from_str(STANDARD).map_err(|error| PolicyError::Standard(error.to_string()))
}

impl Policy {
    /// The policy that comes with the product, its examples not run.
    ///
    /// # Errors
    /// When the file is broken.
    pub fn standard() -> Result<Self, PolicyError> {
        let Standard { places, rules } = standard()?;
        let rules = rules.into_iter().map(|rule| (rule, false)).collect();
        Ok(Self::new(rules, &places, Unknown::default())?)
    }

    /// The product's rules with the user's section. The user's examples are run.
    ///
    /// # Errors
    /// What in the section cannot be used, and what to do about it.
    pub fn load(section: &settings::Policy) -> Result<Self, PolicyError> {
        let Standard { mut places, rules } = standard()?;
        for (name, paths) in &section.places {
            if places.contains_key(name) {
                let cause = format!("its place `{name}` comes with the product; choose another name");
                return Err(PolicyError::Rule { id: "policy.places".to_owned(), cause });
            }
            places.insert(name.clone(), paths.clone());
        }
        let own = section.rules.len();
        check_ids(&rules, &section.rules)?;
        let all = rules
            .into_iter()
            .map(|rule| (rule, false))
            .chain(section.rules.iter().cloned().map(|rule| (rule, true)))
            .collect();
        let mut policy = Self::new(all, &places, section.unknown)?;
        let before = policy.rules.len().saturating_sub(own);
        for rule in policy.rules.iter().skip(before) {
            for (text, expected) in examples(&rule.data) {
                if let Some(failed) = example_fails(&policy, &rule.data.id, text, expected) {
                    return Err(PolicyError::Example(failed));
                }
            }
        }
        match section.overrides.as_slice() {
            [PolicyOverride { rule, verdict, commands }] if rule == "*" && commands.is_empty() => {
                for rule in policy.rules.iter_mut().take(before) {
                    rule.overrides.push((None, *verdict));
                }
            }
            overrides => {
                for change in overrides {
                    policy.change(change, &section.rules)?;
                }
            }
        }
        Ok(policy)
    }

    /// Runs every example of every rule and checks every expression. What does not do what it says is returned.
    #[must_use]
    pub fn failing_examples(&self) -> Vec<String> {
        let mut failed = self.bad_expressions();
        for rule in &self.rules {
            failed.extend(
                examples(&rule.data)
                    .filter_map(|(text, expected)| example_fails(self, &rule.data.id, text, expected)),
            );
        }
        failed
    }

    /// Ids, verdicts and reasons of all rules, for a page that lists them.
    pub fn rules(&self) -> impl Iterator<Item = &PolicyRule> {
        self.rules.iter().map(|rule| &rule.data)
    }

    fn change(&mut self, change: &PolicyOverride, own: &[PolicyRule]) -> Result<(), PolicyError> {
        let PolicyOverride { rule: id, verdict, commands } = change;
        let error = |cause: String| Err(PolicyError::Override { id: id.clone(), cause });
        if own.iter().any(|rule| rule.id == *id) {
            return error("it is your own rule; change its verdict there".to_owned());
        }
        if id == "*" {
            return error(
                "`*` speaks of every rule, for all commands, so it must be the only override".to_owned(),
            );
        }
        // The patterns that name one command and would never be used.
        for command in commands.iter().filter(|command| !command.contains(['*', '?', '['])) {
            if !judge(self, command).rules.iter().any(|rule| rule.id == *id) {
                return error(format!(
                    "the rule does not match `{command}`; correct the command or remove it"
                ));
            }
        }
        let meant = nearest(id, self.rules.iter().map(|rule| rule.data.id.as_str()))
            .map_or_else(|| ".".to_owned(), |known| format!("; did you mean `{known}`?"));
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.data.id == *id) else {
            return error(format!("there is no such rule{meant} Remove the override or correct its rule"));
        };
        if rule.data.verdict == *verdict {
            return error(
                format!("the verdict is {verdict:?} without it; remove the override").to_lowercase(),
            );
        }
        if rule.overrides.iter().any(|(pattern, _)| pattern.is_none())
            || (commands.is_empty() && !rule.overrides.is_empty())
        {
            return error("another override speaks of the same commands; keep one of them".to_owned());
        }
        if commands.is_empty() {
            rule.overrides.push((None, *verdict));
        }
        for command in commands {
            let pattern = Pattern::of_rule(command);
            if rule.overrides.iter().any(|(known, _)| known.as_ref() == Some(&pattern)) {
                return error(format!("`{command}` is named twice; keep one of them"));
            }
            rule.overrides.push((Some(pattern), *verdict));
        }
        Ok(())
    }
}

fn check_ids(standard: &[PolicyRule], own: &[PolicyRule]) -> Result<(), PolicyError> {
    if own.len() > MAX_RULES {
        let cause = format!("there are more than {MAX_RULES}; join some of them");
        return Err(PolicyError::Rule { id: "policy.rules".to_owned(), cause });
    }
    for (index, rule) in own.iter().enumerate() {
        let bad = |cause: &str| Err(PolicyError::Rule { id: rule.id.clone(), cause: cause.to_owned() });
        if rule.id.is_empty() || rule.id.starts_with("policy.") {
            return bad("its id is empty or begins with `policy.`; choose another");
        }
        if standard.iter().any(|known| known.id == rule.id) {
            return bad(
                "a rule of this id comes with the product; choose another id, or use `policy.overrides`",
            );
        }
        if own.iter().take(index).any(|known| known.id == rule.id) {
            return bad("another rule has the same id; choose another");
        }
        if rule.verdict == oxibot_proto::message::Verdict::Allow {
            return bad(
                "a rule that allows has no effect, because the strictest decides; use `policy.overrides`",
            );
        }
        if rule.matches.is_empty() || rule.not_match.is_empty() {
            return bad("give it at least one command in `match` and one in `not_match`");
        }
    }
    Ok(())
}

fn examples(rule: &PolicyRule) -> impl Iterator<Item = (&str, bool)> {
    let matches = rule.matches.iter().map(|text| (text.as_str(), true));
    matches.chain(rule.not_match.iter().map(|text| (text.as_str(), false)))
}

/// What is wrong, if an example does not do what it says.
fn example_fails(policy: &Policy, id: &str, text: &str, expected: bool) -> Option<String> {
    let found = judge(policy, text).rules.iter().any(|judged| judged.id == id);
    let what = if expected { "it does not match its example" } else { "it matches, against its example," };
    (found != expected)
        .then(|| format!("cannot use rule {id}: {what} `{text}`; correct the rule or the example"))
}
