//! `dump-header` and `dump-header-exts`.

use std::io::Write;
use std::path::Path;

use tool_support::image::{OpenArgs, warn_of};
use tool_support::{Out, Outcome};
use vdisk_format::qcow2::{Header, check};

use crate::document::{ExtensionsDocument, HeaderDocument};
use crate::original::{json, text};

/// What is printed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// The original's text.
    Text,
    /// The original's JSON: two documents for `dump-header`.
    OriginalJson,
    /// One document.
    Json,
}

impl Form {
    pub(super) fn new(j: bool, json: bool) -> Self {
        match (json, j) {
            (true, _) => Self::Json,
            (false, true) => Self::OriginalJson,
            (false, false) => Self::Text,
        }
    }
}

pub(super) fn header(path: &Path, open: OpenArgs, form: Form) -> Outcome {
    dump(path, open, form, true)
}

pub(super) fn extensions(path: &Path, open: OpenArgs, form: Form) -> Outcome {
    dump(path, open, form, false)
}

fn dump(path: &Path, open: OpenArgs, form: Form, with_header: bool) -> Outcome {
    let image = open.read(path)?;
    let header = Header::parse(image.bytes())?;
    let mut out = Out::stdout();
    match form {
        Form::Json if with_header => out.json(&HeaderDocument::new(path, &header))?,
        Form::Json => out.json(&ExtensionsDocument::new(path, &header))?,
        Form::OriginalJson => {
            if with_header {
                json::header(&mut out, &header)?;
                writeln!(out)?;
            }
            json::extensions(&mut out, &header)?;
        }
        Form::Text => {
            if with_header {
                text::header(&mut out, &header)?;
            }
            text::extensions(&mut out, &header)?;
        }
    }
    out.finish()?;
    if !matches!(form, Form::Json) {
        warn_of(&check::header(&header));
    }
    Ok(())
}
