//! Curves on logarithmic axes, as SVG: what grows in proportion is a straight line along the dashed one.

use std::fmt::Write;

use super::Point;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 48.0;
const COLOURS: [&str; 3] = ["#2563eb", "#c2410c", "#15803d"];

/// Curves over one axis.
pub(super) struct Panel {
    title: &'static str,
    x_label: &'static str,
    curves: Vec<(&'static str, Vec<(f64, f64)>)>,
}

impl Panel {
    /// The named figures of these points, each with its label.
    pub(super) fn new(
        title: &'static str,
        x_label: &'static str,
        points: &[Point],
        figures: &[(&str, &'static str)],
    ) -> Self {
        let curve = |name: &str| {
            let values = points.iter().filter_map(|point| {
                let value = point.figures[name].as_f64()?;
                // What is too little to be seen has no place on a logarithmic axis.
                (value > 0.0).then_some((point.x, value))
            });
            values.collect()
        };
        Self {
            title,
            x_label,
            curves: figures
                .iter()
                .map(|(name, label)| (*label, curve(name)))
                .collect(),
        }
    }

    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let all = self.curves.iter().flat_map(|(_, points)| points).map(of);
        let (low, high) = all.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let decade = |value: f64| value.max(1e-9).log10();
        (
            decade(low).floor(),
            decade(high).ceil().max(decade(low).floor() + 1.0),
        )
    }

    fn draw(&self, out: &mut String, left: f64) {
        let (x_low, x_high) = self.range(|point| point.0);
        let (y_low, y_high) = self.range(|point| point.1);
        let place = |x: f64, y: f64| {
            let across = (x.log10() - x_low) / (x_high - x_low) * (WIDTH - 2.0 * MARGIN);
            let up = (y.log10() - y_low) / (y_high - y_low) * (HEIGHT - 2.0 * MARGIN);
            (left + MARGIN + across, HEIGHT - MARGIN - up)
        };
        let middle = left + WIDTH / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{middle}\" y=\"20\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>\n<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            self.title,
            HEIGHT - 8.0,
            self.x_label
        );
        let mut decade = x_low;
        while decade <= x_high {
            let (x, bottom) = place(10_f64.powf(decade), 10_f64.powf(y_low));
            let (_, top) = place(10_f64.powf(decade), 10_f64.powf(y_high));
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {bottom:.1}V{top:.1}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 14.0,
                power(decade)
            );
            decade += 1.0;
        }
        let mut decade = y_low;
        while decade <= y_high {
            let (start, y) = place(10_f64.powf(x_low), 10_f64.powf(decade));
            let (end, _) = place(10_f64.powf(x_high), 10_f64.powf(decade));
            let _ = writeln!(
                out,
                "<path d=\"M{start:.1} {y:.1}H{end:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                start - 5.0,
                y + 4.0,
                power(decade)
            );
            decade += 1.0;
        }
        for (at, ((label, points), colour)) in self.curves.iter().zip(COLOURS).enumerate() {
            let path: Vec<String> = points
                .iter()
                .map(|(x, y)| {
                    let (x, y) = place(*x, *y);
                    format!("{x:.1} {y:.1}")
                })
                .collect();
            let _ = writeln!(
                out,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{label}</text>",
                path.join("L"),
                left + MARGIN + 6.0,
                MARGIN + 4.0 + 14.0 * at as f64
            );
            // In proportion, from the last point back to where the axes begin.
            if let Some((x, y)) = points.last() {
                let back = (x.log10() - x_low).min(y.log10() - y_low);
                let (end_x, end_y) = place(*x, *y);
                let (start_x, start_y) = place(x / 10_f64.powf(back), y / 10_f64.powf(back));
                let _ = writeln!(
                    out,
                    "<path d=\"M{start_x:.1} {start_y:.1}L{end_x:.1} {end_y:.1}\" stroke=\"{colour}\" stroke-dasharray=\"2 4\"/>"
                );
            }
        }
    }
}

/// A power of ten as people write it.
fn power(decade: f64) -> String {
    let value = 10_f64.powf(decade);
    match decade {
        6.0.. => format!("{}M", value / 1e6),
        3.0.. => format!("{}k", value / 1e3),
        0.0.. => format!("{value}"),
        _ => format!("{value:.*}", (-decade) as usize),
    }
}

/// The panels side by side.
pub(super) fn svg(panels: &[Panel]) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    for (at, panel) in panels.iter().enumerate() {
        panel.draw(&mut out, at as f64 * WIDTH);
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_curve_is_inside_of_its_panel() {
        let point = |x: f64, y: f64| Point {
            x,
            figures: json!({ "s": y, "none": 0.0 }),
        };
        let points = [point(1.0, 0.02), point(10.0, 0.2), point(100.0, 3.0)];
        let panel = Panel::new(
            "T",
            "things",
            &points,
            &[("s", "seconds"), ("none", "nothing")],
        );
        let text = svg(&[panel]);
        assert_eq!(power(-2.0), "0.01");
        assert_eq!((power(5.0), power(6.0)), ("100k".into(), "1M".into()));
        let path = text
            .lines()
            .find(|line| line.contains("stroke-width"))
            .unwrap();
        let numbers = path.split(|c: char| !c.is_ascii_digit() && c != '.');
        let numbers: Vec<f64> = numbers.filter_map(|word| word.parse().ok()).collect();
        assert!(numbers[..6].iter().all(|number| *number <= WIDTH), "{path}");
        assert_eq!(numbers[0], MARGIN);
    }
}
