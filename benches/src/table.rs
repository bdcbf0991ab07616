//! The table: Markdown, so that it can be pasted.

use crate::measure::Measured;
use crate::row::Row;
use crate::suite::EMPTY;

/// The result of the row called `label`.
pub(crate) fn find<'m>(rows: &[Row], measured: &'m [Measured], label: &str) -> Option<&'m Measured> {
    rows.iter().zip(measured).find(|(row, _)| row.label == label).map(|(_, result)| result)
}

/// All rows, the ones that we lose included.
pub(crate) fn table(rows: &[Row], measured: &[Measured]) -> String {
    let mut out = String::from(
        "| command | ms | × empty | × peer | peak MiB | instructions | answer |\n|---|--:|--:|--:|--:|--:|---|\n",
    );
    let empty = find(rows, measured, EMPTY);
    for (row, result) in rows.iter().zip(measured) {
        let ratio = |other: Option<&Measured>, digits: usize| {
            let ratio = other.map(|other| result.median.as_secs_f64() / other.median.as_secs_f64());
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.digits$}"))
        };
        let peer = row.peer.and_then(|label| find(rows, measured, label)).filter(|peer| !peer.failed);
        out.push_str(&format!(
            "| {} | {:.3} | {} | {} | {} | {} | {} |\n",
            row.label,
            1e3 * result.median.as_secs_f64(),
            ratio(empty, 2),
            ratio(peer, 3),
            result.peak_kib.map_or_else(|| "–".to_owned(), |kib| format!("{:.1}", kib as f64 / 1024.0)),
            result.instructions.map_or_else(|| "–".to_owned(), grouped),
            result.answer.replace('|', "\\|"),
        ));
    }
    out
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(["7", "999", "1,000", "12,345,678"], [7, 999, 1000, 12_345_678].map(grouped)[..]);
    }
}
