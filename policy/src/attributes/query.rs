//! What of a query decides the verb and the name: `watch` and `fieldSelector`, read as Go reads them.

use super::path::{PathRefused, hex};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub watch: bool,
    /// The one name that `metadata.name=` selects.
    pub name: Option<String>,
}

/// Reads the options of a list or watch. Go's net/url takes the first value of a repeated key, and
/// drops a pair with ';' or a broken encoding in silence: such a query is refused, since the pair
/// might be the one that decides.
pub(super) fn options(query: &str) -> Result<Options, PathRefused> {
    let (mut watch, mut selector) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err(PathRefused::Query);
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || unescape(value);
        match unescape(key)?.as_str() {
            "watch" => _ = watch.get_or_insert(value()?),
            "fieldSelector" => _ = selector.get_or_insert(value()?),
            // Still read: a broken encoding anywhere makes Go and others differ.
            _ => drop(value()?),
        }
    }
    Ok(Options {
        watch: watch.is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")),
        name: selector.as_deref().and_then(selected_name),
    })
}

/// The name that a field selector requires exactly; none where the selector is more than plain terms,
/// which only narrows what named rules allow.
fn selected_name(selector: &str) -> Option<String> {
    if selector.contains(['\\', '\0']) {
        return None;
    }
    let mut name = None;
    for term in selector.split(',').filter(|term| !term.is_empty()) {
        if term.contains("!=") {
            continue;
        }
        let (field, value) = term.split_once("==").or_else(|| term.split_once('='))?;
        if field == "metadata.name" && name.is_none() {
            name = Some(value.to_owned());
        }
    }
    name.filter(|name| !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%']))
}

fn unescape(text: &str) -> Result<String, PathRefused> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                bytes.push(tail.get(..2).and_then(hex).ok_or(PathRefused::Query)?);
                rest = &tail[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| PathRefused::Query)
}
