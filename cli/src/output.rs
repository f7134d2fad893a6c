//! Prints objects: a table for people, JSON and YAML for programs.

use serde::Serialize;

use crate::args::Output;

/// What a table says of an object.
pub(crate) type Columns<K> = (&'static [&'static str], fn(&K) -> Vec<String>);

pub(crate) fn print<T: Serialize>(
    output: Output,
    objects: &[T],
    (names, row): Columns<T>,
) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(objects)?),
        Output::Yaml => print!("{}", serde_yaml_ng::to_string(objects)?),
        Output::Table => {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let cells = |object| row(object).iter().map(|cell| plain(cell).replace('\n', " ")).collect();
            print!("{}", table(std::iter::once(names).chain(objects.iter().map(cells)).collect()));
        }
    }
    Ok(())
}

/// Without what a terminal obeys: others name what is shown, in directories and clusters.
pub(crate) fn plain(text: &str) -> String {
    let obeyed = |letter: char| {
        letter.is_control() && letter != '\n'
            // What turns the direction of writing round (Unicode UAX #9).
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if obeyed(letter) { plain.extend(letter.escape_unicode()) } else { plain.push(letter) }
    }
    plain
}

/// Columns as wide as their widest cell, three spaces apart.
fn table(rows: Vec<Vec<String>>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_nobody_who_names_something_commands_the_terminal() {
        for (text, shown) in [
            ("zoe", "zoe"),
            ("Zoë Ω 王 🦀", "Zoë Ω 王 🦀"),
            ("\u{1b}[2J\u{7}", "\\u{1b}[2J\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\r\tb\nc", "a\\u{d}\\u{9}b\nc"),
            ("\u{202e}nimda", "\\u{202e}nimda"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn columns_line_up() {
        let cell = |text: &str| text.to_owned();
        let rows = vec![
            vec![cell("NAME"), cell("ID")],
            vec![cell("a"), cell("c-1")],
            vec![cell("élan vital"), cell("")],
        ];
        assert_eq!(table(rows), "NAME         ID\na            c-1\nélan vital\n");
    }
}
