//! One table of ratios for people, the same as JSON for programs, as Markdown for the page, and as a chart.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::Times;

/// One side of a row.
#[derive(Debug, Clone)]
pub enum Side {
    /// Many times, in microseconds.
    Times(Times),
    /// One number.
    Number(f64),
}

/// Which figure of the two sides is compared. Of a plain number all are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    P50,
    P95,
    P99,
}

impl Figure {
    const ALL: [Self; 3] = [Self::P50, Self::P95, Self::P99];

    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    fn of(self, side: &Side) -> f64 {
        match (self, side) {
            (_, Side::Number(number)) => *number,
            (Self::P50, Side::Times(times)) => times.quantile(0.50),
            (Self::P95, Side::Times(times)) => times.quantile(0.95),
            (Self::P99, Side::Times(times)) => times.quantile(0.99),
        }
    }
}

/// What a ratio must keep.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn kept(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most:.2}"),
            Self::AtLeast(least) => format!(">= {least:.2}"),
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: Side,
    pub theirs: Side,
    pub bars: Vec<(Figure, Bound)>,
}

impl Row {
    /// Two sides that were taken in turn.
    pub fn times(what: impl Into<String>, (ours, theirs): (Times, Times)) -> Self {
        let (ours, theirs) = (Side::Times(ours), Side::Times(theirs));
        Self { what: what.into(), unit: "us", ours, theirs, bars: Vec::new() }
    }

    /// Two numbers.
    pub fn numbers(what: impl Into<String>, unit: &'static str, ours: f64, theirs: f64) -> Self {
        let (ours, theirs) = (Side::Number(ours), Side::Number(theirs));
        Self { what: what.into(), unit, ours, theirs, bars: Vec::new() }
    }

    /// The ratio of a figure must be this at most.
    pub fn at_most(mut self, figure: Figure, most: f64) -> Self {
        self.bars.push((figure, Bound::AtMost(most)));
        self
    }

    /// The ratio must be this at least.
    pub fn at_least(mut self, least: f64) -> Self {
        self.bars.push((Figure::P50, Bound::AtLeast(least)));
        self
    }

    fn ratio(&self, figure: Figure) -> f64 {
        figure.of(&self.ours) / figure.of(&self.theirs)
    }

    /// Bars that were missed.
    pub fn missed(&self) -> usize {
        self.bars.iter().filter(|(figure, bound)| !bound.kept(self.ratio(*figure))).count()
    }

    fn bars_text(&self) -> String {
        let verdict = |(figure, bound): &(Figure, Bound)| {
            let kept = if bound.kept(self.ratio(*figure)) { "kept" } else { "MISSED" };
            format!("{} {} {kept}", figure.name(), bound.text())
        };
        self.bars.iter().map(verdict).collect::<Vec<_>>().join(", ")
    }

    fn spread(&self) -> Option<f64> {
        match (&self.ours, &self.theirs) {
            (Side::Times(ours), Side::Times(theirs)) => Some(ours.spread().max(theirs.spread())),
            _ => None,
        }
    }

    fn figures(side: &Side) -> Value {
        match side {
            Side::Number(number) => json!({ "value": rounded(*number) }),
            Side::Times(times) => json!({
                "p50": rounded(times.quantile(0.50)), "p95": rounded(times.quantile(0.95)),
                "p99": rounded(times.quantile(0.99)), "spread": rounded(times.spread()), "count": times.count(),
            }),
        }
    }

    fn json(&self) -> Value {
        let bars: Vec<Value> = self
            .bars
            .iter()
            .map(|(figure, bound)| {
                json!({"figure": figure.name(), "bar": bound.text(), "ratio": rounded(self.ratio(*figure)),
                    "kept": bound.kept(self.ratio(*figure))})
            })
            .collect();
        let ratio = |figure| rounded(self.ratio(figure));
        json!({
            "what": self.what, "unit": self.unit, "ours": Self::figures(&self.ours), "theirs": Self::figures(&self.theirs),
            "ratio": {"p50": ratio(Figure::P50), "p95": ratio(Figure::P95), "p99": ratio(Figure::P99)}, "bars": bars,
        })
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Everything that was found out.
#[derive(Debug, Default)]
pub struct Report {
    pub machine: String,
    pub rows: Vec<Row>,
    /// What could not be measured, and why.
    pub remarks: Vec<String>,
}

impl Report {
    pub fn missed(&self) -> usize {
        self.rows.iter().map(Row::missed).sum()
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let _ = writeln!(
            text,
            "{:<46} {:>26}    {:>26}    {:>17} {:>6}  bars",
            "", "ours p50 / p95 / p99", "theirs p50 / p95 / p99", "ratio 50/95/99", "spread"
        );
        for row in &self.rows {
            let side = |side: &Side| match side {
                Side::Number(number) => format!("{number:.0}"),
                Side::Times(_) => Figure::ALL.map(|figure| format!("{:>8.0}", figure.of(side))).join(" "),
            };
            let ratio = match row.ours {
                Side::Number(_) => format!("{:.2}", row.ratio(Figure::P50)),
                Side::Times(_) => Figure::ALL.map(|figure| format!("{:.2}", row.ratio(figure))).join(" "),
            };
            let spread = row.spread().map_or(String::new(), |spread| format!("{:.0} %", spread * 100.0));
            let _ = writeln!(
                text,
                "{:<46} {:>26} {:<2} {:>26} {:<2} {ratio:>17} {spread:>6}  {}",
                row.what,
                side(&row.ours),
                row.unit,
                side(&row.theirs),
                row.unit,
                row.bars_text()
            );
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "{remark}");
        }
        text
    }

    pub fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        format!("{:#}\n", json!({"machine": self.machine, "rows": rows, "remarks": self.remarks}))
    }

    /// The table of the page.
    pub fn markdown(&self) -> String {
        let mut text = format!("Measured on: {}.\n\n", self.machine);
        text.push_str(
            "| ours / theirs | ours p50, p99 | theirs p50, p99 | ratio p50, p95, p99 | spread | bar |\n",
        );
        text.push_str("|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let side = |side: &Side| match side {
                Side::Number(number) => format!("{number:.0} {}", row.unit),
                Side::Times(times) => {
                    format!("{:.0}, {:.0} {}", times.quantile(0.5), times.quantile(0.99), row.unit)
                }
            };
            let ratio = match row.ours {
                Side::Number(_) => format!("{:.2}", row.ratio(Figure::P50)),
                Side::Times(_) => Figure::ALL.map(|figure| format!("{:.2}", row.ratio(figure))).join(", "),
            };
            let spread = row.spread().map_or(String::new(), |spread| format!("{:.0} %", spread * 100.0));
            let bars = row.bars_text().replace("MISSED", "**missed**");
            let _ = writeln!(
                text,
                "| {} | {} | {} | {ratio} | {spread} | {bars} |",
                row.what.replace('|', "/"),
                side(&row.ours),
                side(&row.theirs)
            );
        }
        if !self.remarks.is_empty() {
            text.push('\n');
        }
        for remark in &self.remarks {
            let _ = writeln!(text, "- {remark}");
        }
        text
    }

    /// A bar for each ratio; the line at 1 is "as fast as the other side".
    pub fn chart(&self) -> String {
        const ROW: usize = 20;
        const LEFT: f64 = 380.0;
        let ratios = self.rows.iter().map(|row| row.ratio(Figure::P50));
        let most = ratios.fold(2.0_f64, f64::max).min(4.0);
        let scale = 300.0 / most;
        let height = self.rows.len() * ROW + 62;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"8\" y=\"16\">Ratio of \
             medians, ours / theirs. {}</text>\n",
            escape(&self.machine)
        );
        for (index, row) in self.rows.iter().enumerate() {
            let y = index * ROW + 30;
            let width = row.ratio(Figure::P50).min(most) * scale;
            let colour = match (row.bars.is_empty(), row.missed()) {
                (true, _) => "#8a94a6",
                (false, 0) => "#3c6eb5",
                (false, _) => "#b5533c",
            };
            let _ = writeln!(
                svg,
                "<text x=\"8\" y=\"{}\">{}</text><rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"14\" \
                 fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{:.2}</text>",
                y + 11,
                escape(&row.what),
                LEFT + 6.0 + width,
                y + 11,
                row.ratio(Figure::P50)
            );
        }
        let one = LEFT + scale;
        let bottom = self.rows.len() * ROW + 34;
        let _ = writeln!(
            svg,
            "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"24\" y2=\"{bottom}\" stroke=\"#444\" stroke-dasharray=\"3\"/>\n\
             <text x=\"8\" y=\"{}\">blue: within its bar; red: misses it; grey: has none. Dashed: as fast as the other \
             side.</text>\n</svg>",
            bottom + 16
        );
        svg
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
