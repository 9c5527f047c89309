//! Pictures of tables, as SVG: bars from zero, or lines over two logarithmic axes. They follow the
//! reader's choice of a light or a dark page, and say in words what they show.

use core::fmt::Write as _;

use super::table::{Line, Plot};

const WIDTH: f64 = 760.0;
/// Room to the left of the bars, for their labels.
const LABELS: f64 = 340.0;
const ROW: f64 = 20.0;
/// The height of the axes of lines, and the room around them.
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 60.0;
/// Distinct in brightness as well as in hue, on light and on dark.
const COLOURS: [&str; 8] =
    ["#3b78c2", "#d2781e", "#3f9b57", "#b64a8f", "#8a6fd1", "#a08c2a", "#2a9da8", "#c2504d"];
const STYLE: &str = "svg{color:#1d232b;font:12px sans-serif}text{fill:currentColor}\
    @media(prefers-color-scheme:dark){svg{color:#d9dee5}}";

/// The picture.
pub(crate) fn draw(title: &str, plot: &Plot) -> String {
    match plot {
        Plot::Bars { unit, bars } => draw_bars(title, unit, bars),
        Plot::Lines { x, y, lines } => draw_lines(title, x, y, lines),
    }
}

fn draw_bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let room = WIDTH - LABELS - MARGIN;
    let bottom = count(bars.len()) * ROW + ROW;
    let described = bars.iter().map(|(label, value)| format!("{label}: {}", short(*value)));
    let mut svg = head(title, unit, bottom + 2.0 * ROW, &described.collect::<Vec<_>>().join("; "));
    for (at, (label, value)) in bars.iter().enumerate() {
        let top = ROW + count(at) * ROW;
        let (middle, length) = (top + 14.0, value.max(0.0) / most * room);
        let (end, before) = (LABELS + length + 6.0, LABELS - 6.0);
        let colour = COLOURS[0];
        let _infallible = write!(
            svg,
            "<text x=\"{before}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
             <text x=\"{end:.1}\" y=\"{middle}\">{}</text>\n",
            escaped(&cut(label)),
            top + 3.0,
            ROW - 6.0,
            short(*value),
        );
    }
    let _infallible = write!(
        svg,
        "<path d=\"M{LABELS} {ROW}V{bottom}H{}\" fill=\"none\" stroke=\"currentColor\"/>\n\
         <text x=\"{LABELS}\" y=\"{}\">{}</text>\n</svg>\n",
        WIDTH - MARGIN,
        bottom + ROW,
        escaped(unit),
    );
    svg
}

fn draw_lines(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    let points =
        || lines.iter().flat_map(|(_, points)| points).filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let across = Axis::over(points().map(|(x, _)| *x), MARGIN, WIDTH - LABELS + MARGIN);
    let up = Axis::over(points().map(|(_, y)| *y), HEIGHT + ROW, ROW);
    let described = lines.iter().map(|(name, points)| {
        let ends = [points.first(), points.last()]
            .map(|end| end.map_or_else(String::new, |(_, y)| short(*y)));
        format!("{name}: {} to {}", ends[0], ends[1])
    });
    let mut svg = head(title, y, HEIGHT + 3.0 * ROW, &described.collect::<Vec<_>>().join("; "));
    for (value, at) in across.marks() {
        let (foot, below) = (HEIGHT + ROW, HEIGHT + ROW + 16.0);
        let _infallible = write!(
            svg,
            "<path d=\"M{at:.1} {ROW}V{foot}\" stroke=\"currentColor\" stroke-opacity=\".2\"/>\n\
             <text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>\n",
            short(value),
        );
    }
    for (value, at) in up.marks() {
        let _infallible = write!(
            svg,
            "<path d=\"M{MARGIN} {at:.1}H{}\" stroke=\"currentColor\" stroke-opacity=\".2\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            across.end,
            MARGIN - 6.0,
            at + 4.0,
            short(value),
        );
    }
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS.iter().cycle().nth(at).copied().unwrap_or("currentColor");
        let places: Vec<_> = points
            .iter()
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
            .map(|(x, y)| (across.place(*x), up.place(*y)))
            .collect();
        let path = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>();
        let (key, row) = (across.end + 20.0, ROW + count(at) * ROW);
        let _infallible = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <path d=\"M{key} {row}h18\" stroke=\"{colour}\" stroke-width=\"4\"/>\n\
             <text x=\"{}\" y=\"{}\">{}</text>\n",
            path.join(" "),
            key + 24.0,
            row + 4.0,
            escaped(&cut(name)),
        );
        for (x, y) in places {
            let _infallible =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
    let _infallible = write!(
        svg,
        "<path d=\"M{MARGIN} {ROW}V{}H{}\" fill=\"none\" stroke=\"currentColor\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\">{} by {}</text>\n</svg>\n",
        HEIGHT + ROW,
        across.end,
        HEIGHT + 2.8 * ROW,
        escaped(y),
        escaped(x),
    );
    svg
}

/// A logarithmic axis, from one power of ten to another.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// An axis that begins at `start` and ends at `end` on the picture and holds all values.
    fn over(values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for power in values.map(f64::log10) {
            (low, high) = (low.min(power.floor()), high.max(power.ceil()));
        }
        if !low.is_finite() || !high.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        Self { low, high: high.max(low + 1.0), start, end }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.start + share * (self.end - self.start)
    }

    /// Each power of ten, and its place.
    fn marks(&self) -> Vec<(f64, f64)> {
        let mut marks = Vec::new();
        let mut power = self.low;
        // A number of nanoseconds to one of years is 17 powers.
        while power <= self.high && marks.len() < 20 {
            let value = 10_f64.powf(power);
            marks.push((value, self.place(value)));
            power += 1.0;
        }
        marks
    }
}

fn head(title: &str, unit: &str, height: f64, described: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"title desc\">\n<title id=\"title\">{}</title>\n\
         <desc id=\"desc\">{}. {}</desc>\n<style>{STYLE}</style>\n",
        escaped(title),
        escaped(unit),
        escaped(described),
    )
}

/// A number as a picture shows it.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{:.0}M", value / 1e6),
        _ if value >= 1e4 => format!("{:.0}k", value / 1e3),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A label that fits beside its bar.
fn cut(label: &str) -> String {
    if label.chars().count() <= 52 {
        return label.to_owned();
    }
    label.chars().take(51).chain(core::iter::once('…')).collect()
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element that is opened is closed, in order.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
            let name = tag.split_whitespace().next().unwrap();
            if let Some(closed) = name.strip_prefix('/') {
                assert_eq!(open.pop(), Some(closed), "{svg}");
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} stay open");
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_described_in_words() {
        let bars = vec![("whole".to_owned(), 2.0), ("half & <more>".to_owned(), 1.0)];
        let svg = draw("A title", &Plot::Bars { unit: "GB/s".to_owned(), bars });
        assert_well_formed(&svg);
        assert!(svg.contains("width=\"360.0\"") && svg.contains("width=\"180.0\""), "{svg}");
        assert!(svg.contains("<title id=\"title\">A title</title>"), "{svg}");
        assert!(svg.contains("whole: 2.00; half &amp; &lt;more&gt;: 1.00</desc>"), "{svg}");
        assert!(svg.contains("currentColor") && svg.contains("prefers-color-scheme:dark"), "{svg}");
    }

    #[test]
    fn lines_lie_on_logarithmic_axes() {
        let axis = Axis::over([10.0, 5000.0].into_iter(), 0.0, 300.0);
        let places = [10.0, 100.0, 10_000.0].map(|value| format!("{:.3}", axis.place(value)));
        assert_eq!(places, ["0.000", "100.000", "300.000"]);
        assert_eq!(axis.marks().len(), 4);
        let lines = vec![
            ("free".to_owned(), vec![(1e3, 5.0), (1e5, 50.0)]),
            ("none".to_owned(), Vec::new()),
        ];
        let plot = Plot::Lines { x: "pieces".to_owned(), y: "µs".to_owned(), lines };
        let svg = draw("Growth", &plot);
        assert_well_formed(&svg);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("free: 5.00 to 50"), "{svg}");
    }

    #[test]
    fn what_has_no_value_or_a_strange_one_is_drawn_all_the_same() {
        for values in [vec![], vec![("a".to_owned(), 0.0)], vec![("b".to_owned(), -1.0)]] {
            assert_well_formed(&draw("t", &Plot::Bars { unit: String::new(), bars: values }));
        }
        let lines = vec![("zero".to_owned(), vec![(0.0, 0.0)])];
        let svg = draw("t", &Plot::Lines { x: String::new(), y: String::new(), lines });
        assert_well_formed(&svg);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_long_label_is_cut_and_a_number_is_short() {
        assert_eq!(cut(&"x".repeat(60)).chars().count(), 52);
        let shown = [2e6, 12_000.0, 450.0, 0.5, 0.01].map(short);
        assert_eq!(shown, ["2M", "12k", "450", "0.50", "0.0100"]);
    }
}
