//! Columns of text, aligned.

/// A table: the heads of its columns, then its rows. Columns of numbers stand to the right.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let columns: Vec<Column> = heads
        .iter()
        .enumerate()
        .map(|(index, head)| Column::new(head, rows.iter().filter_map(|row| row.get(index))))
        .collect();
    let mut text = line(&columns, heads.iter().copied());
    for row in rows {
        text.push_str(&line(&columns, row.iter().map(String::as_str)));
    }
    text
}

struct Column {
    width: usize,
    numbers: bool,
}

impl Column {
    fn new<'a>(head: &str, cells: impl Iterator<Item = &'a String>) -> Self {
        let cells: Vec<&String> = cells.collect();
        let widths = cells.iter().map(|cell| cell.chars().count());
        let is_number = |cell: &str| {
            cell.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'_' | b'.' | b'%'))
        };
        Self {
            width: widths.max().unwrap_or(0).max(head.chars().count()),
            numbers: cells.iter().all(|cell| is_number(cell)),
        }
    }
}

fn line<'a>(columns: &[Column], cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<String> = columns
        .iter()
        .zip(cells)
        .map(|(column, cell)| {
            let blanks = " ".repeat(column.width.saturating_sub(cell.chars().count()));
            match column.numbers {
                true => blanks + cell,
                false => cell.to_owned() + &blanks,
            }
        })
        .collect();
    format!("  {}\n", cells.join("  ").trim_end())
}

/// Bars: a name, its size as text, and its share of the largest in `width` characters.
pub(super) fn bars(rows: &[(String, u64, String)], width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let most = rows.iter().map(|row| row.1).max().unwrap_or(0).max(1);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, size, text)| {
            let eighths = u128::from(*size) * 8 * width as u128 / u128::from(most);
            let eighths = usize::try_from(eighths).unwrap_or(0);
            // What is there at all can be seen.
            let eighths = eighths.max(usize::from(*size > 0));
            let rest = EIGHTHS.get(eighths % 8).copied().unwrap_or_default();
            vec![name.clone(), "█".repeat(eighths / 8) + rest, text.clone()]
        })
        .collect();
    let columns: Vec<Column> = (0..3)
        .map(|index| Column {
            numbers: index == 2,
            ..Column::new("", cells.iter().filter_map(|row| row.get(index)))
        })
        .collect();
    let lines = cells
        .iter()
        .map(|row| line(&columns, row.iter().map(String::as_str)));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "1"], ["long", "1_000"]].map(|row| row.map(String::from).to_vec());
        let text = table(&["name", "keys"], &rows);
        assert_eq!(text, "  name   keys\n  a         1\n  long  1_000\n");
    }

    #[test]
    fn bars_have_their_share() {
        let row = |name: &str, size: u64| (name.to_owned(), size, size.to_string());
        let text = bars(&[row("a", 100), row("bb", 50), row("c", 0), row("d", 1)], 4);
        assert_eq!(
            text,
            "  a   ████  100\n  bb  ██     50\n  c           0\n  d   ▏       1\n"
        );
    }
}
