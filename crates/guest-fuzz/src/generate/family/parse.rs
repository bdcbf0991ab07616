//! The text of a data file. Its form is described [above](super).

use super::{Family, Layout, Match, Register, Step, Steps, Value, Values};
use crate::error::{Error, Result};
use crate::instruction::Width;
use crate::region::Space;

/// The most that a step is repeated.
const MOST: u64 = 1024;

/// What a line lacks: what was expected, and the word that was found.
type Fault = (&'static str, String);

/// Reads the data file `name`.
pub(super) fn family(name: &str, text: &str) -> Result<Family> {
    let mut family = Family {
        name: String::new(),
        matches: Vec::new(),
        registers: Vec::new(),
        layouts: Vec::new(),
        steps: Vec::new(),
    };
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        add(&mut family, &words).map_err(|(expected, found)| Error::Syntax {
            what: format!("device file {name}"),
            line: number + 1,
            expected: expected.to_owned(),
            found: found.chars().take(40).collect(),
        })?;
    }
    Ok(family)
}

fn add(family: &mut Family, words: &[&str]) -> Result<(), Fault> {
    match *words {
        [] => {}
        ["device", name] => family.name = name.to_owned(),
        ["port", first] => family.matches.push(Match::Port(port(first)?)),
        ["name", glob] => family.matches.push(Match::Name(glob.to_owned())),
        ["pci", id, space] => family.matches.push(pci(id, space, "0")?),
        ["pci", id, space, number] => family.matches.push(pci(id, space, number)?),
        [kind @ ("register" | "fixed"), name, offset, widths] => {
            family.registers.push(register(kind, name, offset, widths, "any")?);
        }
        [kind @ ("register" | "fixed"), name, offset, widths, values] => {
            family.registers.push(register(kind, name, offset, widths, values)?);
        }
        ["layout", name, ref fields @ ..] => {
            let fields = fields.iter().map(|text| field(text)).collect::<Result<_, _>>()?;
            family.layouts.push(Layout { name: name.to_owned(), fields });
        }
        ["steps", ref rest @ ..] => {
            let steps = steps(family, rest)?;
            family.steps.push(steps);
        }
        [first, ..] => return Err(("a line of a device file", first.to_owned())),
    }
    Ok(())
}

fn pci(id: &str, space: &str, number: &str) -> Result<Match, Fault> {
    let (vendor, device) = id.split_once(':').ok_or(("VENDOR:DEVICE", id.to_owned()))?;
    let hex =
        |text: &str| u16::from_str_radix(text, 16).map_err(|_| ("four hexadecimal digits", text.to_owned()));
    let space = match space {
        "port" => Space::Port,
        "memory" => Space::Memory,
        _ => return Err(("port or memory", space.to_owned())),
    };
    let device = if device == "*" { None } else { Some(hex(device)?) };
    Ok(Match::Pci { vendor: hex(vendor)?, device, space, number: self::number(number)? as usize })
}

fn register(kind: &str, name: &str, offset: &str, widths: &str, text: &str) -> Result<Register, Fault> {
    let fixed = kind == "fixed";
    let offset = if fixed { u64::from(port(offset)?) } else { number(offset)? };
    let widths = widths.chars().map(width).collect::<Result<_, _>>()?;
    Ok(Register { name: name.to_owned(), offset, fixed, widths, values: values(text)? })
}

fn field(text: &str) -> Result<(Width, Values), Fault> {
    let fault = ("WIDTH:VALUES", text.to_owned());
    match text.split_once(':') {
        Some((letter, text)) if letter.len() == 1 => {
            Ok((width(letter.chars().next().unwrap_or(' '))?, values(text)?))
        }
        _ => Err(fault),
    }
}

fn width(letter: char) -> Result<Width, Fault> {
    match letter {
        'b' => Ok(Width::Byte),
        'w' => Ok(Width::Word),
        'l' => Ok(Width::Long),
        'q' => Ok(Width::Quad),
        _ => Err(("a width: b, w, l or q", letter.to_string())),
    }
}

fn steps(family: &Family, words: &[&str]) -> Result<Steps, Fault> {
    let (weight, words) = match words {
        [first, rest @ ..] if first.starts_with('x') && number(first.trim_start_matches('x')).is_ok() => {
            (number(first.trim_start_matches('x'))?, rest)
        }
        _ => (1, words),
    };
    let steps = words.iter().map(|word| step(family, word)).collect::<Result<Vec<_>, _>>()?;
    if weight == 0 || steps.is_empty() {
        return Err(("a weight above 0, and steps", words.join(" ")));
    }
    Ok(Steps { weight, steps })
}

fn step(family: &Family, word: &str) -> Result<Step, Fault> {
    if word == "~" {
        return Ok(Step::Delay);
    }
    if let Some(name) = word.strip_prefix('@') {
        let layout = family.layouts.iter().position(|layout| layout.name == name);
        return layout.map(Step::Lay).ok_or(("a layout", word.to_owned()));
    }
    let (word, count) = match word.split_once('*') {
        Some((word, count)) => (word, number(count)?),
        None => (word, 1),
    };
    if !(1..=MOST).contains(&count) {
        return Err(("a count from 1 to 1024", count.to_string()));
    }
    let register = |name: &str| {
        let register = family.registers.iter().position(|register| register.name == name);
        register.ok_or(("a register", name.to_owned()))
    };
    let count = count as u32;
    match (word.strip_suffix('?'), word.split_once('=')) {
        (Some(name), _) => Ok(Step::Read { register: register(name)?, count }),
        (None, Some((name, text))) => {
            Ok(Step::Write { register: register(name)?, values: Some(values(text)?), count })
        }
        (None, None) => Ok(Step::Write { register: register(word)?, values: None, count }),
    }
}

/// Reads alternatives.
pub(super) fn values(text: &str) -> Result<Values, Fault> {
    Ok(Values(text.split('|').map(value).collect::<Result<_, _>>()?))
}

fn value(text: &str) -> Result<Value, Fault> {
    match text {
        "any" => return Ok(Value::Any),
        "small" => return Ok(Value::Small),
        "bit" => return Ok(Value::Bit),
        "length" => return Ok(Value::Length),
        "ram" => return Ok(Value::Ram { shift: 0, plus: 0 }),
        _ => {}
    }
    if let Some(shift) = text.strip_prefix("ram>>") {
        let shift = number(shift)?;
        let fault = ("a shift below 64", text.to_owned());
        return if shift < 64 { Ok(Value::Ram { shift: shift as u32, plus: 0 }) } else { Err(fault) };
    }
    if let Some(plus) = text.strip_prefix("ram+") {
        return Ok(Value::Ram { shift: 0, plus: number(plus)? });
    }
    if let Some((base, mask)) = text.split_once('&') {
        let base = if base.is_empty() { 0 } else { number(base)? };
        return Ok(Value::Bits { base, mask: number(mask)? });
    }
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last { Err(("a range that ascends", text.to_owned())) } else { Ok(Value::Range(first, last)) }
}

fn port(text: &str) -> Result<u16, Fault> {
    u16::try_from(number(text)?).map_err(|_| ("a port", text.to_owned()))
}

fn number(text: &str) -> Result<u64, Fault> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| ("a number", text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let head = "device x\nregister a 0 b\nlayout d l:ram\n";
        let wrong = [
            "register b 0 z",
            "register b zero b",
            "register b 0 b 3-2",
            "register b 0 b ram>>64",
            "fixed b 0x10000 b",
            "port 65536",
            "pci 8086 port",
            "pci 8086:1 ports",
            "pci 8086:12345 port",
            "layout e ll:1",
            "layout e 1",
            "steps",
            "steps x0 a",
            "steps b",
            "steps @e",
            "steps a*0",
            "steps a*1025",
            "steps a=",
            "nonsense",
            "register b 0 b &",
        ];
        for line in wrong {
            let error = family("x", &format!("{head}{line}")).unwrap_err().to_string();
            assert!(error.starts_with("device file x, line 4: expected "), "{line}: {error}");
        }
        assert_eq!(
            family("x", &format!("{head}steps x3 a?*4 a=1|any*2 @d ~ # so")).unwrap().steps[0].steps.len(),
            4
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(device|port|pci|register|fixed|layout|steps|[a-z0-9x:=*&|>?@~ -]{0,12}|\n){0,20}") {
            let _ = family("x", &text);
        }
    }
}
