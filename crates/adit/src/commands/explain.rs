//! `adit explain`: what an error code means.

use adit_model::Code;

use crate::failure::{Failure, wrap};
use crate::{Outcome, advice, terminal};

/// Columns of a paragraph.
const WIDTH: usize = 80;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  adit explain ADIT-2001")]
pub(crate) struct Args {
    /// The code, ADIT-2001 or 2001
    code: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let upper = args.code.trim().to_ascii_uppercase();
    let number = upper.strip_prefix("ADIT-").unwrap_or(&upper).parse().ok();
    let code = number.and_then(Code::from_number).ok_or_else(|| {
        let what = format!("{} is not one of the codes", args.code);
        Failure::with(
            Code::USAGE,
            what,
            "a code looks like ADIT-2001 and stands in the message",
        )
    })?;
    let text = advice::paragraph(code)
        .unwrap_or_default()
        .replace("**Do:**", "Do:");
    let lines = wrap(&text, WIDTH.min(terminal::width())).join("\n");
    Ok(terminal::print_whole(&format!(
        "{code}: {}\n\n{lines}\n",
        code.title
    ))?)
}
