//! What to do about a code: taken from the page of error codes, so that the
//! terminal and the page cannot disagree.

use adit_model::Code;

/// The page.
const PAGE: &str = include_str!("../../../docs/errors.md");

/// The paragraph of a code, without its heading.
pub(crate) fn paragraph(code: Code) -> Option<&'static str> {
    let heading = format!("\n### {code}: ");
    let (_, after) = PAGE.split_once(&heading)?;
    let (_, text) = after.split_once('\n')?;
    let end = text.find("\n#").unwrap_or(text.len());
    Some(text[..end].trim())
}

/// What to do, from the paragraph.
pub(crate) fn remedy(code: Code) -> Option<String> {
    let (_, remedy) = paragraph(code)?.split_once("**Do:** ")?;
    Some(remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_remedy_here() {
        for code in Code::ALL {
            let remedy = remedy(*code).unwrap_or_default();
            assert!(
                remedy.len() > 15 && !remedy.contains('#'),
                "{code}: {remedy}"
            );
        }
    }
}
