//! Curves as SVG, and the page around them.

use std::fmt::Write as _;

/// One curve.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A diagram.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) curves: Vec<Curve>,
    /// A level to compare with, and its name.
    pub(crate) level: Option<(f64, String)>,
    /// Powers of ten on the vertical axis.
    pub(crate) logarithmic: bool,
}

/// Colours that differ in print and for colour-blind readers (Okabe and Ito), the first for ours.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000"];

/// Colour and dashes of a curve: after the last colour they repeat with dashes.
fn look(place: usize) -> (&'static str, &'static str) {
    let dashes = if place < COLOURS.len() { "" } else { r#" stroke-dasharray="7 4""# };
    (COLOURS[place % COLOURS.len()], dashes)
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 46.0;

impl Chart {
    /// Returns the diagram as an SVG element of the given height offset.
    fn body(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let right = points().map(|point| point.0).fold(1e-9, f64::max);
        let level = self.level.as_ref().map_or(0.0, |level| level.0);
        let highest = points().map(|point| point.1).fold(level, f64::max).max(1e-9);
        let (low, high) =
            if self.logarithmic { (0.0, highest.max(10.0).log10().ceil()) } else { (0.0, highest * 1.05) };
        let across = |x: f64| LEFT + x / right * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| {
            let y = if self.logarithmic { y.max(1.0).log10() } else { y };
            HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        };
        let mut svg = String::new();
        let _ = write!(svg, r#"<text x="{LEFT}" y="20" class="title">{}</text>"#, escape(&self.title));
        for tick in ticks(right) {
            let x = across(tick);
            let bottom = HEIGHT - BOTTOM;
            let _ = write!(
                svg,
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}" class="grid"/><text x="{x:.1}" y="{}" class="tick" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                figure(tick)
            );
        }
        let rows = if self.logarithmic {
            (0..=high as i32).map(|power| 10_f64.powi(power)).collect()
        } else {
            ticks(highest * 1.05)
        };
        for tick in rows {
            let y = up(tick);
            let end = WIDTH - RIGHT;
            let _ = write!(
                svg,
                r#"<line x1="{LEFT}" x2="{end}" y1="{y:.1}" y2="{y:.1}" class="grid"/><text x="{}" y="{:.1}" class="tick" text-anchor="end">{}</text>"#,
                LEFT - 6.0,
                y + 4.0,
                figure(tick)
            );
        }
        let _ = write!(
            svg,
            r#"<text x="{}" y="{}" class="axis" text-anchor="middle">{}</text><text transform="translate(16 {}) rotate(-90)" class="axis" text-anchor="middle">{}</text>"#,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 8.0,
            escape(&self.x),
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            escape(&self.y)
        );
        // Ours is drawn last, on top.
        for (place, curve) in self.curves.iter().enumerate().rev() {
            let (colour, dashes) = look(place);
            let (width, opacity) = if place == 0 { (2.8, 1.0) } else { (1.6, 0.85) };
            // A logarithmic axis cannot show zero.
            let shown = |point: &(f64, f64)| !self.logarithmic || point.1 >= 1.0;
            for part in curve.points.split(|point| !shown(point)).filter(|part| !part.is_empty()) {
                let path: String = part.iter().fold(String::new(), |mut path, (x, y)| {
                    let _ = write!(path, "{:.1},{:.1} ", across(*x), up(*y));
                    path
                });
                let _ = write!(
                    svg,
                    r#"<polyline points="{path}" fill="none" stroke="{colour}"{dashes} stroke-width="{width}" stroke-opacity="{opacity}" stroke-linejoin="round" stroke-linecap="round"><title>{}</title></polyline>"#,
                    escape(&curve.name)
                );
            }
        }
        if let Some((level, name)) = &self.level {
            let y = up(*level);
            let end = WIDTH - RIGHT;
            let _ = write!(
                svg,
                r#"<line x1="{LEFT}" x2="{end}" y1="{y:.1}" y2="{y:.1}" class="level"/><text x="{}" y="{:.1}" class="name" text-anchor="end">{}</text>"#,
                end - 4.0,
                y - 6.0,
                escape(name)
            );
        }
        svg
    }
}

/// Returns all diagrams below each other, with one legend, as one SVG document.
pub(crate) fn svg(charts: &[Chart]) -> String {
    let names: Vec<&str> =
        charts.first().map_or_else(Vec::new, |chart| chart.curves.iter().map(|curve| curve.name.as_str()).collect());
    let columns = 3;
    let legend = 14.0 + names.len().div_ceil(columns) as f64 * 20.0;
    let height = legend + charts.len() as f64 * HEIGHT;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"><style>{STYLE}</style><rect width="{WIDTH}" height="{height}" class="paper"/>"#
    );
    for (place, name) in names.iter().enumerate() {
        let x = LEFT + (place % columns) as f64 * 268.0;
        let y = 20.0 + (place / columns) as f64 * 20.0;
        let (colour, dashes) = look(place);
        let _ = write!(
            svg,
            r#"<line x1="{x}" x2="{}" y1="{y}" y2="{y}" stroke="{colour}"{dashes} stroke-width="3"/><text x="{}" y="{}" class="axis">{}</text>"#,
            x + 22.0,
            x + 28.0,
            y + 4.0,
            escape(name)
        );
    }
    for (place, chart) in charts.iter().enumerate() {
        let _ = write!(svg, r#"<g transform="translate(0 {})">{}</g>"#, legend + place as f64 * HEIGHT, chart.body());
    }
    svg + "</svg>"
}

/// Returns one self-contained page: heading, facts, diagrams and a table.
pub(crate) fn page(title: &str, facts: &[String], charts: &[Chart], head: &[&str], rows: &[Vec<String>]) -> String {
    let facts: String = facts.iter().map(|fact| format!("<li>{}</li>", escape(fact))).collect();
    let cells = |tag: &str, row: &mut dyn Iterator<Item = &str>| {
        row.fold(String::new(), |cells, cell| cells + &format!("<{tag}>{}</{tag}>", escape(cell)))
    };
    let head = cells("th", &mut head.iter().copied());
    let rows: String =
        rows.iter().map(|row| format!("<tr>{}</tr>", cells("td", &mut row.iter().map(String::as_str)))).collect();
    let title = escape(title);
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{PAGE}</style></head><body><main>\
         <h1>{title}</h1><ul>{facts}</ul><div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>\
         </table></div><figure>{}</figure><footer>The curves named after other clients are policies written anew from \
         their published sources, not those clients themselves. D is the ideal drain time: devices divided by \
         admissions per second.</footer></main></body></html>\n",
        svg(charts)
    )
}

const STYLE: &str = ".paper{fill:#fff}.title{font:600 15px system-ui,sans-serif;fill:#1a1a1a}.tick{font:12px \
                     system-ui,sans-serif;fill:#555}.axis{font:13px system-ui,sans-serif;fill:#333}.grid{stroke:#e4e4e4;\
                     stroke-width:1}.name{font:600 12px system-ui,sans-serif;fill:#b00020;paint-order:stroke;stroke:#fff;stroke-width:4px}.level{stroke:#b00020;stroke-width:1.4;stroke-dasharray:6 4}";

const PAGE: &str = "body{margin:0;background:#f6f7f9;color:#1a1a1a;font:16px/1.5 system-ui,sans-serif}main{max-width:\
                    1000px;margin:0 auto;padding:24px 16px}h1{font-size:24px;margin:0 0 8px}ul{margin:0 0 16px;padding-\
                    left:20px}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;background:#fff;font-\
                    variant-numeric:tabular-nums;font-size:14px}th,td{padding:6px 10px;border:1px solid #dde1e6;text-\
                    align:right}th:first-child,td:first-child{text-align:left}th{background:#eef1f5}tbody \
                    tr:first-child td{font-weight:600}th,td{white-space:nowrap}figure{margin:16px 0;background:#fff;border:1px solid #dde1e6;overflow-x:auto}\
                    figure svg{display:block;width:100%;min-width:680px;height:auto}footer{color:#555;font-size:13px}";

/// Round figures from zero to `end`.
fn ticks(end: f64) -> Vec<f64> {
    let rough = end / 6.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    (0..=(end / step) as u32).map(|count| f64::from(count) * step).collect()
}

fn figure(value: f64) -> String {
    if value >= 1e6 {
        format!("{} M", trimmed(value / 1e6))
    } else if value >= 10_000.0 {
        format!("{} k", trimmed(value / 1e3))
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(90.0).len(), 5);
    }

    #[test]
    fn no_two_curves_look_alike() {
        let looks: std::collections::HashSet<_> = (0..2 * COLOURS.len()).map(look).collect();
        assert_eq!(looks.len(), 2 * COLOURS.len());
    }

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let page = page("<b>", &[], &[], &["a"], &[vec!["\"<script>".into()]]);
        assert!(!page.contains("<script>") && !page.contains("<b>"));
    }
}
