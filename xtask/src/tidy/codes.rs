//! A code of the catalogue is one that somebody can meet: live code outside the
//! catalogue names it.

use std::path::Path;

use super::Finding;
use crate::source::{Source, names};

const CATALOGUE: &str = "crates/model/src/code.rs";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let Some(catalogue) = sources.iter().find(|s| s.path == Path::new(CATALOGUE)) else {
        return vec![Finding::new(CATALOGUE, "the catalogue of codes is gone")];
    };
    let users = || {
        sources
            .iter()
            .filter(|s| !s.path.starts_with("crates/model"))
    };
    let mut findings = Vec::new();
    for (at, name) in constants(&catalogue.live) {
        let used = format!("Code::{name}");
        if !users().any(|source| !names(&source.live, &used).is_empty()) {
            let why = format!(
                "{name} is documented and never told: emit it, or take it out of catalogue and page"
            );
            findings.push(Finding::at(catalogue, at, why));
        }
    }
    findings
}

/// `NAME` of each `NAME = 1203, …` of the catalogue, with its position.
fn constants(code: &str) -> Vec<(usize, &str)> {
    let upper = |c: char| c.is_ascii_uppercase() || c == '_';
    code.match_indices(" = ")
        .filter_map(|(at, _)| {
            let number = &code[at + 3..];
            let digits = number.bytes().take_while(u8::is_ascii_digit).count();
            let start = code[..at]
                .rfind(|c| !upper(c))
                .map_or(0, |before| before + 1);
            let is_one = digits == 4 && number[4..].starts_with(',') && start < at;
            is_one.then(|| (start, &code[start..at]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::tests::source;

    const TWO: &str = "catalogue! {\n    USAGE = 1001, Yours, \"a\";\n    NEVER_TOLD = 1002, Yours, \"b\";\n}\nconst MAX: u16 = 9999;\n";

    #[test]
    fn a_code_that_nobody_tells_is_found() {
        let catalogue = source(CATALOGUE, TWO);
        let user = "fn a() { tell(Code::USAGE) }\n#[cfg(test)]\nmod tests {\n fn t() { x(Code::NEVER_TOLD) }\n}\n";
        let user = source("crates/edge/src/a.rs", user);
        let own = source("crates/model/src/b.rs", "fn c() { Code::NEVER_TOLD }");
        let found = check(&[catalogue, user, own]);
        let places: Vec<&str> = found.iter().map(|f| f.place.as_str()).collect();
        assert_eq!(places, ["crates/model/src/code.rs:3"]);
        assert!(found[0].why.starts_with("NEVER_TOLD is documented"));
    }
}
