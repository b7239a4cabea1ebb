//! The drawing of what the cluster does under load: throughput above, then latency, memory below, all against how many
//! requests are under way. All axes are logarithmic: twice as much is as far everywhere.

#![allow(
    clippy::float_arithmetic,
    reason = "places on paper, of which nothing is computed any more"
)]

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::Cost;
use crate::scheme::title;

const WIDTH: f64 = 720.0;
/// Of one of the three pictures.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// Of the schemes, in their order.
const COLOURS: [&str; 3] = ["#1b6ca8", "#c0392b", "#2e7d32"];

/// One line of a picture: a name, its colour, whether it is dashed, and its points.
struct Line {
    name: String,
    colour: &'static str,
    is_dashed: bool,
    points: Vec<(f64, f64)>,
}

/// The drawing as SVG. Its text says what is drawn, so that it can be read without being seen.
#[must_use]
pub fn drawn(costs: &[Cost]) -> String {
    let (mut throughput, mut latency, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for (cost, colour) in costs.iter().zip(COLOURS) {
        let line = |name: &str, is_dashed, of: &dyn Fn(&crate::load::Load) -> f64| Line {
            name: format!("{}{name}", title(cost.scheme)),
            colour,
            is_dashed,
            points: cost.loads.iter().map(|load| (f64::from(load.at_once), of(load))).collect(),
        };
        throughput.push(line("", false, &|load| {
            f64::from(load.signatures) / load.signing.as_secs_f64().max(1e-3)
        }));
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        latency.push(line(" median", false, &|load| millis(load.latency.half)));
        latency.push(line(" 99 of 100", true, &|load| millis(load.latency.most)));
        memory.push(line(" enclave", false, &|load| mebibytes(load.memory.enclave)));
        memory.push(line(" parent", true, &|load| mebibytes(load.memory.parent)));
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Throughput, latency and memory against requests at a time</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        3.0 * HEIGHT,
    );
    picture(&mut svg, 0.0, "signatures a second", &throughput);
    picture(&mut svg, HEIGHT, "latency in ms", &latency);
    picture(&mut svg, 2.0 * HEIGHT, "memory in MiB", &memory);
    svg.push_str("</svg>\n");
    svg
}

fn mebibytes(bytes: u64) -> f64 {
    // whole KiB, of which no process has more than a `u32` holds
    f64::from(u32::try_from(bytes >> 10).unwrap_or(u32::MAX)) / 1024.0
}

/// The powers of a base around all of these.
fn around(values: impl Iterator<Item = f64>, base: f64) -> (i32, i32) {
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values.filter(|value| *value > 0.0) {
        (least, most) = (least.min(value), most.max(value));
    }
    if most == 0.0 {
        return (0, 1);
    }
    let power = |value: f64| value.ln() / base.ln();
    // what was asked for is a whole power often, and a logarithm not quite
    #[allow(clippy::cast_possible_truncation, clippy::as_conversions, reason = "powers are small")]
    let (low, high) = ((power(least) + 1e-9).floor() as i32, (power(most) - 1e-9).ceil() as i32);
    (low, high.max(low.saturating_add(1)))
}

fn picture(svg: &mut String, top: f64, what: &str, lines: &[Line]) {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let (left, right) = around(points().map(|(x, _)| x), 2.0);
    let (low, high) = around(points().map(|(_, y)| y), 10.0);
    let part = |value: f64, base: f64, (low, high): (i32, i32)| {
        (value.ln() / base.ln() - f64::from(low)) / f64::from(high.saturating_sub(low))
    };
    let at = |x: f64, y: f64| {
        (
            LEFT + part(x, 2.0, (left, right)) * (WIDTH - LEFT - RIGHT),
            top + HEIGHT - BOTTOM - part(y, 10.0, (low, high)) * (HEIGHT - TOP - BOTTOM),
        )
    };
    let _ =
        writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{what}</text>", top + 24.0);
    for power in low..=high {
        let value = 10_f64.powi(power);
        let ((from, y), (to, _)) = (at(2_f64.powi(left), value), at(2_f64.powi(right), value));
        let _ = writeln!(
            svg,
            "<path d=\"M{from:.1} {y:.1}H{to:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            from - 6.0,
            y + 4.0,
        );
    }
    for power in left..=right {
        let value = 2_f64.powi(power);
        let (x, y) = at(value, 10_f64.powi(low));
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            y + 18.0,
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">requests at a time</text>",
        WIDTH - RIGHT,
        top + HEIGHT - 6.0,
    );
    for (number, line) in lines.iter().enumerate() {
        let path: Vec<String> = line
            .points
            .iter()
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
            .map(|(x, y)| {
                let (x, y) = at(*x, *y);
                format!("{x:.1} {y:.1}")
            })
            .collect();
        let dashes = if line.is_dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let (colour, name) = (line.colour, &line.name);
        let y = f64::from(u16::try_from(number).unwrap_or_default()).mul_add(16.0, top + TOP + 8.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\
             <path d=\"M{:.1} {:.1}h16\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\
             <text x=\"{:.1}\" y=\"{y:.1}\" font-size=\"10\">{name}</text>",
            path.join("L"),
            WIDTH - RIGHT + 4.0,
            y - 4.0,
            WIDTH - RIGHT + 24.0,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_begin_and_end_at_powers_around_what_is_drawn() {
        assert_eq!(around([1.0, 256.0].into_iter(), 2.0), (0, 8));
        assert_eq!(around([3.0, 250.0].into_iter(), 10.0), (0, 3));
        assert_eq!(around([10.0, 1_000.0].into_iter(), 10.0), (1, 3));
        assert_eq!(around([8.0].into_iter(), 2.0), (3, 4));
        assert_eq!(around(std::iter::empty(), 2.0), (0, 1));
    }

    #[test]
    fn points_lie_within_their_picture_and_more_is_higher() {
        let mut svg = String::new();
        let points = vec![(1.0, 5.0), (256.0, 80.0)];
        let line = Line { name: "x".to_owned(), colour: COLOURS[0], is_dashed: true, points };
        picture(&mut svg, 0.0, "y", &[line]);
        let path = svg.split("<path d=\"M").find(|path| path.contains("fill=\"none\"")).unwrap();
        let numbers: Vec<f64> = path
            .split('"')
            .next()
            .unwrap()
            .split(['L', ' '])
            .map(|number| number.parse().unwrap())
            .collect();
        let [x0, y0, x1, y1] = numbers[..] else { panic!("{path}") };
        assert!((x0 - LEFT).abs() < 0.1 && (x1 - (WIDTH - RIGHT)).abs() < 0.1, "{path}");
        assert!(TOP < y1 && y1 < y0 && y0 < HEIGHT - BOTTOM, "{path}");
    }
}
