//! One table of ratios for people, the same as JSON for programs and as a chart.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::Times;

/// Which figure of the two sides is compared.
#[derive(Debug, Clone, Copy)]
pub enum Figure {
    Median,
    P99,
}

impl Figure {
    fn of(self, times: &Times) -> f64 {
        match self {
            Self::Median => times.median(),
            Self::P99 => times.quantile(0.99),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Median => "p50",
            Self::P99 => "p99",
        }
    }
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    pub what: String,
    pub figure: &'static str,
    pub ours: f64,
    pub theirs: f64,
    pub unit: &'static str,
    /// Largest ratio allowed; for throughput the smallest.
    pub bound: Option<Bound>,
    pub spread: Option<(f64, f64)>,
}

/// What a ratio must keep.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Line {
    pub fn times(what: &str, figure: Figure, (ours, theirs): &(Times, Times), bound: Option<f64>) -> Self {
        Self {
            what: what.to_owned(),
            figure: figure.name(),
            ours: figure.of(ours),
            theirs: figure.of(theirs),
            unit: "us",
            bound: bound.map(Bound::AtMost),
            spread: Some((ours.spread(), theirs.spread())),
        }
    }

    pub fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    pub fn kept(&self) -> Option<bool> {
        self.bound.map(|bound| match bound {
            Bound::AtMost(most) => self.ratio() <= most,
            Bound::AtLeast(least) => self.ratio() >= least,
        })
    }

    fn bound_text(&self) -> String {
        match self.bound {
            None => String::new(),
            Some(Bound::AtMost(most)) => format!("<= {most}"),
            Some(Bound::AtLeast(least)) => format!(">= {least}"),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.kept() {
            None => "",
            Some(true) => "kept",
            Some(false) => "MISSED",
        }
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "figure": self.figure, "ours": self.ours, "theirs": self.theirs, "unit": self.unit,
            "ratio": self.ratio(), "bound": self.bound_text(), "kept": self.kept(),
            "spread": self.spread.map(|(ours, theirs)| json!({"ours": ours, "theirs": theirs})),
        })
    }
}

/// The table, 100 columns.
pub fn table(machine: &str, lines: &[Line]) -> String {
    let mut text = format!("{machine}\n\n");
    let _ = writeln!(
        text,
        "{:<48} {:>4} {:>10} {:>10} {:>7}  {:<8} ",
        "what", "", "ours", "theirs", "ratio", "bound"
    );
    for line in lines {
        let _ = writeln!(
            text,
            "{:<48} {:>4} {:>7.0} {:<2} {:>7.0} {:<2} {:>7.2}  {:<8} {}",
            line.what,
            line.figure,
            line.ours,
            line.unit,
            line.theirs,
            line.unit,
            line.ratio(),
            line.bound_text(),
            line.verdict()
        );
    }
    text
}

pub fn json(machine: &str, lines: &[Line]) -> String {
    let lines: Vec<Value> = lines.iter().map(Line::json).collect();
    format!("{:#}\n", json!({"machine": machine, "lines": lines}))
}

/// A bar for each ratio; the line at 1 is "as fast as the other side".
pub fn chart(machine: &str, lines: &[Line]) -> String {
    const ROW: usize = 22;
    let most = lines.iter().map(Line::ratio).fold(2.0_f64, f64::max).min(5.0);
    let scale = 300.0 / most;
    let height = lines.len() * ROW + 60;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"18\">ratio ours / theirs, less is faster; {}</text>\n",
        escape(machine)
    );
    for (index, line) in lines.iter().enumerate() {
        let y = index * ROW + 34;
        let width = line.ratio().min(most) * scale;
        let colour = if line.kept() == Some(false) { "#b5533c" } else { "#3c6eb5" };
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{} ({})</text><rect x=\"380\" y=\"{y}\" width=\"{width:.1}\" height=\"15\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.2}</text>",
            y + 12,
            escape(&line.what),
            line.figure,
            386.0 + width,
            y + 12,
            line.ratio()
        );
    }
    let one = 380.0 + scale;
    let _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"28\" y2=\"{}\" stroke=\"#444\" stroke-dasharray=\"3\"/>\n</svg>",
        height - 16
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
