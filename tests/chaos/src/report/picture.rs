//! The timeline of a run as one HTML file that needs nothing else: a lane for each replica with its
//! faults and its times as leader, and one for mints and failed reads.

use std::fmt::Write as _;

use super::Summary;
use crate::check::Violation;
use crate::history::{Event, Line, Nanos};

/// Pixels of one second.
const SCALE: f64 = 6.0;
/// Pixels of the lane of one replica, and between two.
const LANE: usize = 46;
/// Where lanes begin, in pixels.
const LEFT: f64 = 90.0;
const TOP: usize = 30;

/// Draws a history.
pub fn draw(history: &[Line], summary: &Summary, violations: &[Violation]) -> String {
    let places = history
        .iter()
        .filter_map(|line| match line.event {
            Event::ReplicaStarts { replica, .. } => Some(replica + 1),
            _ => None,
        })
        .max()
        .unwrap_or(summary.run.replicas);
    let width = LEFT + x(summary.length) + 40.0;
    let height = TOP + (places + 3) * LANE;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height}" font-family="system-ui" font-size="11">"#
    );
    axis(&mut svg, summary.length, height);
    for place in 0..places {
        label(&mut svg, place, &format!("replica {place}"));
    }
    label(&mut svg, places, "everyone");
    label(&mut svg, places + 1, "mints");
    label(&mut svg, places + 2, "reads");
    leaders(&mut svg, history, summary.length);
    strikes(&mut svg, summary, places);
    dots(&mut svg, history, places);
    for violation in violations {
        let at = LEFT + x(violation.at);
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{height}" stroke="#d00" stroke-width="2"><title>{}</title></line>"##,
            escape(&violation.to_string())
        );
    }
    svg.push_str("</svg>");
    page(summary, violations, &svg)
}

fn page(summary: &Summary, violations: &[Violation], svg: &str) -> String {
    let verdict = match violations.len() {
        0 => "every promise held".to_owned(),
        n => format!("{n} violations, red"),
    };
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>chaos, seed {seed}</title>\
         <style>body{{font:14px system-ui;margin:1.5em}}div{{overflow-x:auto}}</style>\
         <h1>Seed {seed}, {replicas} replicas: {verdict}</h1>\
         <p>{mints} mints, {reads} reads, {faults} faults. Green: leads. Orange: a fault. \
         Dots: mints, red if refused. Point at anything.</p><div>{svg}</div>",
        seed = summary.run.seed,
        replicas = summary.run.replicas,
        mints = summary.mints,
        reads = summary.reads,
        faults = summary.strikes.len(),
    )
}

fn axis(svg: &mut String, length: Nanos, height: usize) {
    for tick in (0..=length / 1_000_000_000).step_by(10) {
        let at = LEFT + x(tick * 1_000_000_000);
        let _ = writeln!(
            svg,
            r##"<line x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{height}" stroke="#eee"/><text x="{at:.1}" y="{}" fill="#888">{tick} s</text>"##,
            TOP - 8
        );
    }
}

fn label(svg: &mut String, lane: usize, text: &str) {
    let y = TOP + lane * LANE + 20;
    let _ = writeln!(svg, r#"<text x="4" y="{y}">{}</text>"#, escape(text));
}

/// Who leads, and for how long.
fn leaders(svg: &mut String, history: &[Line], length: Nanos) {
    let mut office: Option<(usize, Nanos)> = None;
    let close = |svg: &mut String, office: Option<(usize, Nanos)>, until: Nanos| {
        if let Some((place, since)) = office {
            bar(svg, place, 30, (since, until), "#9c9", "leads");
        }
    };
    for line in history {
        if let Event::Leads { replica, .. } = line.event {
            close(svg, office, line.at);
            office = replica.map(|place| (place, line.at));
        }
    }
    close(svg, office, length);
}

fn strikes(svg: &mut String, summary: &Summary, places: usize) {
    for strike in &summary.strikes {
        let lanes = match strike.replicas.is_empty() {
            true => vec![places],
            false => strike.replicas.clone(),
        };
        let told = format!(
            "{}: {} · {}",
            strike.family,
            strike.name,
            strike.evidence.as_deref().unwrap_or("no effect seen")
        );
        let (row, colour) = match strike.family.as_str() {
            "process" => (0, "#e94"),
            "network" => (10, "#48c"),
            _ => (20, "#a6a"),
        };
        for lane in lanes {
            bar(svg, lane, row, (strike.began, strike.ended), colour, &told);
        }
    }
}

fn dots(svg: &mut String, history: &[Line], places: usize) {
    for line in history {
        let (lane, at, colour, told) = match &line.event {
            Event::Mint {
                arrived, record, ..
            } => {
                let colour = match record.status {
                    Some(200) => "#3a3",
                    Some(_) => "#d33",
                    None => "#999",
                };
                let client = record.client.as_deref().unwrap_or("?");
                (places + 1, *arrived, colour, client.to_owned())
            }
            Event::ReadFailed { asked, reader, .. } => {
                (places + 2, *asked, "#d33", format!("{reader} failed"))
            }
            _ => continue,
        };
        let (cx, cy) = (LEFT + x(at), TOP + lane * LANE + 18);
        let _ = writeln!(
            svg,
            r#"<circle cx="{cx:.1}" cy="{cy}" r="2.5" fill="{colour}"><title>{}</title></circle>"#,
            escape(&told)
        );
    }
}

fn bar(
    svg: &mut String,
    lane: usize,
    row: usize,
    (from, until): (Nanos, Nanos),
    colour: &str,
    told: &str,
) {
    let (left, y) = (LEFT + x(from), TOP + lane * LANE + row);
    let width = (x(until) - x(from)).max(2.0);
    let _ = writeln!(
        svg,
        r#"<rect x="{left:.1}" y="{y}" width="{width:.1}" height="9" fill="{colour}" opacity="0.85"><title>{}</title></rect>"#,
        escape(told)
    );
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn x(at: Nanos) -> f64 {
    at as f64 / 1e9 * SCALE
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
