//! Rules ready to be tried: made from the policy's data, found by the program they speak of.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use oxibot_proto::message::{JudgedRule, Verdict};
use oxibot_proto::settings::{PolicyClause, PolicyRule, Unknown};
use regex::{Regex, RegexBuilder};

use super::foreign::Languages;
use super::options::{Wrapper, has, operands_at, positionals, valued_before_subcommand, values};
use super::path::{Place, normal};
use super::pattern::Pattern;
use super::tree::RedirectKind;
use super::value::Names;
use super::walk::{Event, Simple};

/// Memory one expression may take, in bytes. A user's rule must not be able to fill the reader's.
const MAX_EXPRESSION: usize = 1 << 20;

/// Everything a script is held against.
#[derive(Debug)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
    /// Clauses by the program they name.
    by_program: BTreeMap<String, Vec<(usize, usize)>>,
    /// Clauses for programs named by a pattern, or for any.
    general: Vec<(usize, usize)>,
    unknown: Unknown,
    /// Kept here because they are made once for all scripts.
    languages: Languages,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) data: PolicyRule,
    clauses: Vec<Clause>,
    /// Commands for which an override set another verdict: only those, or all where there is no pattern.
    pub(super) overrides: Vec<(Option<Pattern>, Verdict)>,
}

/// A rule that matched, with the verdict it has for this command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matched<'p> {
    rule: &'p Rule,
    verdict: Verdict,
}

impl<'p> Matched<'p> {
    pub(super) fn id(self) -> &'p str {
        &self.rule.data.id
    }

    pub(super) fn verdict(self) -> Verdict {
        self.verdict
    }

    pub(super) fn judged(self) -> JudgedRule {
        let PolicyRule { id, reason, alternative, .. } = &self.rule.data;
        JudgedRule { id: id.clone(), reason: reason.clone(), alternative: alternative.clone() }
    }
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use rule {id}: {cause}")]
pub(super) struct BadRule {
    pub(super) id: String,
    pub(super) cause: String,
}

/// The conditions of one clause. All that are there have to hold.
#[derive(Debug, Default)]
struct Clause {
    programs: Vec<Pattern>,
    sub: Vec<Vec<String>>,
    flags: Vec<Vec<String>>,
    without: Vec<String>,
    arg: Vec<Pattern>,
    not_arg: Vec<Pattern>,
    path: Vec<Place>,
    not_path: Vec<Place>,
    last: Vec<Place>,
    keyed: Option<(String, Vec<Place>)>,
    option: Option<(Vec<String>, Vec<Pattern>)>,
    writes: Vec<Place>,
    reads: Vec<Place>,
    assigns: Vec<Pattern>,
    text: Option<Expression>,
    not_text: Option<Expression>,
    code: Option<Expression>,
    from: Vec<Pattern>,
    not_from: Vec<Pattern>,
    via: Vec<Pattern>,
    events: Vec<Event>,
    least: usize,
}

/// An expression, compiled when it is first needed: most are not in the life of a reader.
#[derive(Debug)]
struct Expression {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Expression {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), regex: OnceLock::new() }
    }

    fn regex(&self) -> Option<&Regex> {
        self.regex
            .get_or_init(|| {
                RegexBuilder::new(&self.text).size_limit(MAX_EXPRESSION).multi_line(true).build().ok()
            })
            .as_ref()
    }

    fn finds(&self, text: &str) -> bool {
        // One that cannot be compiled was refused when it was loaded.
        self.regex().is_none_or(|regex| regex.is_match(text))
    }
}

/// A command with what is computed from it once for all rules.
#[derive(Debug)]
pub(super) struct Seen<'w> {
    simple: &'w Simple,
    names: &'w Names,
    arguments: &'w [String],
    /// Where flags are looked for: not among those of the command a wrapper runs.
    own: &'w [String],
    text: OnceCell<String>,
    operands: OnceCell<Vec<&'w str>>,
    paths: OnceCell<Vec<String>>,
}

impl<'w> Seen<'w> {
    pub(super) fn new(simple: &'w Simple, names: &'w Names) -> Self {
        let arguments = simple.words.get(1..).unwrap_or_default();
        let own = match Wrapper::of(&simple.program) {
            Some(wrapper) => arguments.get(..operands_at(arguments, wrapper.valued)).unwrap_or(arguments),
            None => arguments,
        };
        Self {
            simple,
            names,
            arguments,
            own,
            text: OnceCell::new(),
            operands: OnceCell::new(),
            paths: OnceCell::new(),
        }
    }

    /// Program and arguments as a person would write them, without quotes; or assignments that stand alone.
    fn text(&self) -> &str {
        self.text.get_or_init(|| {
            if self.simple.words.is_empty() {
                let set = self.simple.assigned.iter();
                return set
                    .map(|(name, value)| format!("{name}={}", self.names.shown(value)))
                    .collect::<Vec<_>>()
                    .join(" ");
            }
            let mut words = vec![self.simple.program.clone()];
            words.extend(self.arguments.iter().map(|word| self.names.shown(word)));
            words.join(" ")
        })
    }

    fn operands(&self) -> &[&'w str] {
        self.operands
            .get_or_init(|| positionals(self.arguments, valued_before_subcommand(&self.simple.program)))
    }

    fn paths(&self) -> &[String] {
        self.paths.get_or_init(|| {
            self.operands().iter().filter_map(|operand| normal(operand, &self.simple.cwd)).collect()
        })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn patterns(text: Option<&String>) -> Vec<Pattern> {
    text.map(|text| words(text).map(Pattern::of_rule).collect()).unwrap_or_default()
}

impl Clause {
    fn new(id: &str, data: &PolicyClause, places: &BTreeMap<String, Vec<String>>) -> Result<Self, BadRule> {
        let bad = |cause: String| BadRule { id: id.to_owned(), cause };
        let place = |names: &str| -> Result<Vec<Place>, BadRule> {
            let mut all = Vec::new();
            for name in words(names) {
                if name.contains('/') || matches!(name, "~" | "." | "..") {
                    all.push(Place::new(name));
                    continue;
                }
                let known = places.get(name).ok_or_else(|| {
                    let names: Vec<&str> = places.keys().map(String::as_str).collect();
                    bad(format!("there is no place `{name}`; places are {}", names.join(", ")))
                })?;
                all.extend(known.iter().map(|text| Place::new(text)));
            }
            Ok(all)
        };
        let places_of = |names: &Option<String>| names.as_deref().map_or(Ok(Vec::new()), place);
        let expression = |text: &Option<String>| -> Result<Option<Expression>, BadRule> {
            Ok(text.as_deref().map(Expression::new))
        };
        let mut events = Vec::new();
        for name in data.event.as_deref().into_iter().flat_map(words) {
            events.push(match name {
                "runs-input" => Event::RunsInput,
                "runs-output" => Event::RunsOutput,
                "runs-download" => Event::RunsDownload,
                "fork-bomb" => Event::ForkBomb,
                "endless-spawn" => Event::EndlessSpawn,
                "empties-many" => Event::EmptiesMany,
                other => {
                    return Err(bad(format!(
                        "there is no event `{other}`; events are runs-input, runs-output, runs-download, fork-bomb, endless-spawn, empties-many"
                    )));
                }
            });
        }
        let alternatives =
            |text: &str| text.split('|').map(|flag| flag.trim().to_owned()).collect::<Vec<_>>();
        let after_colon = |text: &str, what: &str| -> Result<(String, String), BadRule> {
            text.split_once(':')
                .map(|(left, right)| (left.trim().to_owned(), right.trim().to_owned()))
                .ok_or_else(|| bad(format!("`{what}` needs a colon: `{text}`")))
        };
        let keyed = match &data.keyed {
            Some(text) => {
                let (key, names) = after_colon(text, "keyed")?;
                Some((format!("{key}="), place(&names)?))
            }
            None => None,
        };
        let option = match &data.option {
            Some(text) => {
                let (names, globs) = after_colon(text, "option")?;
                Some((alternatives(&names), words(&globs).map(Pattern::of_rule).collect()))
            }
            None => None,
        };
        let clause = Self {
            programs: patterns(data.program.as_ref()),
            sub: data
                .sub
                .as_deref()
                .map(|text| text.split('|').map(|sub| words(sub).map(str::to_owned).collect()).collect())
                .unwrap_or_default(),
            flags: data.flags.iter().map(|text| alternatives(text)).collect(),
            without: data.without.as_deref().map(alternatives).unwrap_or_default(),
            arg: patterns(data.arg.as_ref()),
            not_arg: patterns(data.not_arg.as_ref()),
            path: places_of(&data.path)?,
            not_path: places_of(&data.not_path)?,
            last: places_of(&data.last)?,
            keyed,
            option,
            writes: places_of(&data.writes)?,
            reads: places_of(&data.reads)?,
            assigns: patterns(data.assigns.as_ref()),
            text: expression(&data.text)?,
            not_text: expression(&data.not_text)?,
            code: expression(&data.code)?,
            from: patterns(data.from.as_ref()),
            not_from: patterns(data.not_from.as_ref()),
            via: patterns(data.via.as_ref()),
            events,
            least: usize::from(data.least.unwrap_or(0)),
        };
        if *data == PolicyClause::default() {
            return Err(bad("one of its clauses is empty and would match everything".to_owned()));
        }
        Ok(clause)
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        [&self.text, &self.not_text, &self.code].into_iter().flatten()
    }

    fn holds(&self, seen: &Seen<'_>) -> bool {
        let simple = seen.simple;
        let any = |patterns: &[Pattern], text: &str| patterns.iter().any(|pattern| pattern.fits(text));
        let at = |places: &[Place], path: &str| places.iter().any(|place| place.holds(path));
        let target = |value: &str| normal(value, &simple.cwd);
        (self.programs.is_empty() || any(&self.programs, &simple.program))
            && self.events.iter().all(|event| simple.events.contains(event))
            && (self.sub.is_empty() || self.sub.iter().any(|sub| starts_with(seen, sub)))
            && self.flags.iter().all(|flags| flags.iter().any(|flag| has(seen.own, flag)))
            && !self.without.iter().any(|flag| has(seen.own, flag))
            && seen.operands().len() >= self.least
            && (self.arg.is_empty() || seen.arguments.iter().any(|word| any(&self.arg, word)))
            && !seen.arguments.iter().any(|word| any(&self.not_arg, word))
            && (self.path.is_empty() || seen.paths().iter().any(|path| at(&self.path, path)))
            && !seen.paths().iter().any(|path| at(&self.not_path, path))
            && (self.last.is_empty()
                || seen.operands().len() > 1
                    && seen
                        .operands()
                        .last()
                        .and_then(|last| target(last))
                        .is_some_and(|path| at(&self.last, &path)))
            && self.keyed.as_ref().is_none_or(|(key, places)| {
                seen.arguments
                    .iter()
                    .filter_map(|word| word.strip_prefix(key.as_str()))
                    .any(|value| target(value).is_some_and(|path| at(places, &path)))
            })
            && self.option.as_ref().is_none_or(|(names, globs)| {
                names.iter().any(|name| values(seen.arguments, name).iter().any(|value| any(globs, value)))
            })
            && (self.writes.is_empty()
                || redirects(simple, true).any(|to| target(to).is_some_and(|p| at(&self.writes, &p))))
            && (self.reads.is_empty()
                || redirects(simple, false).any(|to| target(to).is_some_and(|p| at(&self.reads, &p))))
            && (self.assigns.is_empty() || simple.assigned.iter().any(|(name, _)| any(&self.assigns, name)))
            && (self.from.is_empty()
                || simple.stdin.sources.iter().chain(&simple.fed).any(|program| any(&self.from, program)))
            && !simple.stdin.sources.iter().chain(&simple.fed).any(|program| any(&self.not_from, program))
            && (self.via.is_empty() || simple.via.iter().any(|program| any(&self.via, program)))
            && self
                .code
                .as_ref()
                .is_none_or(|code| simple.code.as_deref().is_some_and(|text| code.finds(text)))
            && self.text.as_ref().is_none_or(|text| text.finds(seen.text()))
            && !self.not_text.as_ref().is_some_and(|text| text.finds(seen.text()))
    }
}

fn redirects(simple: &Simple, written: bool) -> impl Iterator<Item = &str> {
    simple
        .redirects
        .iter()
        .filter(move |redirect| match redirect.kind {
            RedirectKind::Write | RedirectKind::Append => written,
            RedirectKind::Read => !written,
            RedirectKind::Both => true,
            RedirectKind::Duplicate | RedirectKind::Here | RedirectKind::HereString => false,
        })
        .map(|redirect| redirect.target.as_str())
}

/// Whether the operands begin with these words.
fn starts_with(seen: &Seen<'_>, sub: &[String]) -> bool {
    let valued = valued_before_subcommand(&seen.simple.program);
    let at = operands_at(seen.arguments, valued);
    let rest = seen.arguments.get(at..).unwrap_or_default();
    let mut operands = rest.iter().filter(|word| !word.starts_with('-'));
    sub.iter().all(|wanted| operands.next().is_some_and(|word| Pattern::of_rule(wanted).fits(word)))
}

impl Policy {
    /// Makes rules ready. Expressions are compiled, and so checked, only where `checked` says so: ours are by a test.
    pub(super) fn new(
        rules: Vec<(PolicyRule, bool)>,
        places: &BTreeMap<String, Vec<String>>,
        unknown: Unknown,
    ) -> Result<Self, BadRule> {
        let mut policy = Self {
            rules: Vec::new(),
            by_program: BTreeMap::new(),
            general: Vec::new(),
            unknown,
            languages: Languages::default(),
        };
        for (data, checked) in rules {
            let clauses = data
                .when
                .iter()
                .map(|clause| Clause::new(&data.id, clause, places))
                .collect::<Result<Vec<_>, _>>()?;
            if clauses.is_empty() {
                return Err(BadRule { id: data.id, cause: "it has no clause in `when`".to_owned() });
            }
            if checked {
                for expression in clauses.iter().flat_map(Clause::expressions) {
                    if expression.regex().is_none() {
                        let cause =
                            format!("`{}` is no regular expression, or too large a one", expression.text);
                        return Err(BadRule { id: data.id, cause });
                    }
                }
            }
            let rule = policy.rules.len();
            for (index, clause) in data.when.iter().enumerate() {
                let named: Vec<&str> = clause.program.as_deref().into_iter().flat_map(words).collect();
                if named.is_empty() || named.iter().any(|name| name.contains(['*', '?', '['])) {
                    policy.general.push((rule, index));
                } else {
                    for name in named {
                        policy.by_program.entry(name.to_owned()).or_default().push((rule, index));
                    }
                }
            }
            policy.rules.push(Rule { data, clauses, overrides: Vec::new() });
        }
        Ok(policy)
    }

    /// Expressions that are none.
    pub(super) fn bad_expressions(&self) -> Vec<String> {
        let mut bad = Vec::new();
        for rule in &self.rules {
            for expression in rule.clauses.iter().flat_map(Clause::expressions) {
                if expression.regex().is_none() {
                    bad.push(format!(
                        "cannot use rule {}: `{}` is no regular expression",
                        rule.data.id, expression.text
                    ));
                }
            }
        }
        bad
    }

    pub(super) fn languages(&self) -> &Languages {
        &self.languages
    }

    pub(super) fn unknown(&self) -> Unknown {
        self.unknown
    }

    /// The rules that match a command.
    pub(super) fn matching<'p>(&'p self, seen: &Seen<'_>) -> Vec<Matched<'p>> {
        let mut found: Vec<Matched<'p>> = Vec::new();
        let named = self.by_program.get(&seen.simple.program).into_iter().flatten();
        for (index, clause) in named.chain(&self.general) {
            let Some(rule) = self.rules.get(*index) else { continue };
            if found.iter().any(|known| std::ptr::eq(known.rule, rule)) {
                continue;
            }
            if rule.clauses.get(*clause).is_some_and(|clause| clause.holds(seen)) {
                let verdict = rule
                    .overrides
                    .iter()
                    .find(|(pattern, _)| pattern.as_ref().is_none_or(|pattern| pattern.fits(seen.text())))
                    .map_or(rule.data.verdict, |(_, verdict)| *verdict);
                found.push(Matched { rule, verdict });
            }
        }
        found
    }
}
