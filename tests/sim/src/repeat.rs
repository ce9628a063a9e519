//! One line for one run: everything that decides it, so that a violation that one machine prints is seen on another.
//!
//! Words of the form `key=value`, in any order, without spaces in them; a key that is missing has its plain value. The
//! choices of the medium are `path`. Format and its reader stand side by side, and a test reads back what was printed.

use crate::{
    chores::Chore,
    device::{Voyage, first},
    explore::Violation,
    fleet::{Quality, Revision},
    loader::Skill,
    medium::{Bounds, Damage, Fault, Lie, Model, Reach},
    suite::{MUTANTS, several},
    taken::Origin,
};
use runtime::fault::Code;
use std::fmt::{Debug, Write};

/// The command that repeats a run.
pub fn command(violation: &Violation) -> String {
    format!("cargo run -q -p simulator -- --repeat '{}'", line(&violation.voyage, &violation.line))
}

/// A voyage and the choices of the medium (`Gen::line`) in one line.
pub fn line(voyage: &Voyage, path: &str) -> String {
    let Voyage { fleet, chores, origin, skill, cuts, fault, mutant, model, boot, later, damage, lie, .. } = voyage;
    let revision = |it: &Revision| format!("{}:{:?}:{}:{}", it.rev, it.quality, it.assets[0].0[1], it.objects[3].0[1]);
    let chore = |chore: &Chore| match chore.revision() {
        Some(number) => format!("{}:{number}", word(chore)),
        None => word(chore),
    };
    let bounds = |it: &Bounds| {
        let Bounds { exhaustive, singles, pairs, drawn, seed } = it;
        format!("{exhaustive}:{}:{}:{drawn}:{seed}", u8::from(*singles), u8::from(*pairs))
    };
    let mut text = format!(
        "model={} fleet={} chores={} skill={skill:?} bounds={}",
        model.word(),
        list(&fleet[1..], revision),
        list(chores, chore),
        bounds(&voyage.bounds)
    );
    let mut add = |key: &str, value: String| {
        let _ = write!(text, " {key}={value}");
    };
    add("later", bounds(later));
    if *origin != Origin::Factory {
        add("origin", format!("{origin:?}"));
    }
    boot.inspect(|model| add("boot", model.word().into()));
    if !cuts.is_empty() {
        add("cuts", list(cuts, u64::to_string));
    }
    if let Some((at, Fault { at: call, sticky, code, reach })) = fault {
        add("fault", format!("{at}:{call}:{}:{}:{reach:?}", u8::from(*sticky), *code as u16));
    }
    if let Some((at, damage)) = damage {
        add("damage", format!("{at}:{}", damage.line()));
    }
    if voyage.hasty {
        add("hasty", "1".into());
    }
    lie.inspect(|lie| add("lie", format!("{lie:?}")));
    mutant.inspect(|mutant| add("mutant", format!("{mutant:?}").replace(' ', "")));
    if !path.is_empty() {
        add("path", path.replace(' ', ","));
    }
    text
}

/// What `line` printed.
pub fn parse(text: &str) -> Result<(Voyage, String), String> {
    let mut voyage = Voyage { chores: vec![], ..several(vec![]) };
    let mut path = String::new();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word}: not of the form key=value"))?;
        set(&mut voyage, &mut path, key, value).ok_or_else(|| format!("{word}: not understood"))?;
    }
    voyage.fleet[0] = voyage.origin.fleet().swap_remove(0);
    Ok((voyage, path))
}

fn set(voyage: &mut Voyage, path: &mut String, key: &str, value: &str) -> Option<()> {
    let parts: Vec<&str> = value.split(':').collect();
    let number = |at: usize| parts.get(at)?.parse::<u64>().ok();
    match key {
        "model" => voyage.model = Model::parse(value)?,
        "boot" => voyage.boot = Some(Model::parse(value)?),
        "fleet" => voyage.fleet = [first()].into_iter().chain(values(value, revision)?).collect(),
        "chores" => voyage.chores = values(value, chore)?,
        "skill" => voyage.skill = named(&Skill::ALL, value)?,
        "cuts" => voyage.cuts = values(value, |text| text.parse().ok())?,
        "bounds" => voyage.bounds = bounds(&parts)?,
        "later" => voyage.later = bounds(&parts)?,
        "fault" => {
            let code = Code::from_number(number(3)? as u16)?;
            let reach = named(&Reach::ALL, parts.get(4)?)?;
            voyage.fault = Some((number(0)? as u32, Fault { at: number(1)?, sticky: number(2)? == 1, code, reach }));
        }
        "damage" => voyage.damage = Some((number(0)? as u32, Damage::parse(value.split_once(':')?.1)?)),
        "origin" => voyage.origin = named(&Origin::ALL, value)?,
        "hasty" => voyage.hasty = value == "1",
        "lie" => voyage.lie = Some(named(&Lie::ALL, value)?),
        "mutant" => {
            let is = |mutant: &dyn Debug| format!("{mutant:?}").replace(' ', "") == value;
            voyage.mutant = Some(MUTANTS.iter().find(|sabotage| is(&sabotage.mutant))?.mutant);
        }
        "path" => *path = value.replace(',', " "),
        _ => return None,
    }
    Some(())
}

fn bounds(parts: &[&str]) -> Option<Bounds> {
    let numbers: Vec<u64> = parts.iter().map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [exhaustive, singles, pairs, drawn, seed] = numbers[..] else { return None };
    Some(Bounds { exhaustive: exhaustive as u32, singles: singles == 1, pairs: pairs == 1, drawn: drawn as u32, seed })
}

fn revision(text: &str) -> Option<Revision> {
    let [name, quality, base, image] = text.split(':').collect::<Vec<_>>()[..] else { return None };
    Some(Revision::new(name, named(&Quality::ALL, quality)?, base.parse().ok()?, image.parse().ok()?))
}

fn chore(text: &str) -> Option<Chore> {
    let (word, number) = text.split_once(':').unwrap_or((text, "0"));
    let number = number.parse().ok()?;
    let all = [
        Chore::Update(number),
        Chore::Run(number),
        Chore::Stage(number),
        Chore::Describe(number),
        Chore::Try(number),
        Chore::TakeOver(number),
        Chore::Collect,
        Chore::Reset,
    ];
    all.into_iter().find(|chore| self::word(chore) == word)
}

/// A variant's name without what it holds.
fn word(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split('(').next().unwrap_or_default().to_string()
}

fn named<T: Debug + Copy>(all: &[T], text: &str) -> Option<T> {
    all.iter().copied().find(|value| format!("{value:?}") == text)
}

fn list<T>(values: &[T], text: impl Fn(&T) -> String) -> String {
    values.iter().map(text).collect::<Vec<_>>().join(",")
}

fn values<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').filter(|part| !part.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chores::{Operation, voyage};

    #[test]
    fn what_is_printed_is_read_back() {
        let plain = voyage(&[Operation::Arm, Operation::Collect, Operation::FactoryReset]);
        let fault = Fault { at: 17, sticky: true, code: Code::NoSpace, reach: Reach::All };
        let full = Voyage {
            cuts: vec![3, 44],
            fault: Some((2, fault)),
            damage: Some((3, Damage::Flip { copy: 1, bit: 77 })),
            lie: Some(Lie::Drops),
            boot: Some(Model::Fat),
            model: Model::Ext4Ordered,
            skill: Skill::Careless,
            origin: Origin::AsItIs,
            mutant: Some(MUTANTS[0].mutant),
            bounds: Bounds::ALL,
            ..voyage(&[Operation::LocalInstall, Operation::Fail])
        };
        for (voyage, path) in [(plain, ""), (full, "0 1 204")] {
            let text = line(&voyage, path);
            let (read, chosen) = parse(&text).unwrap();
            assert_eq!((line(&read, &chosen), chosen.as_str()), (text, path));
            assert_eq!(format!("{read:?}"), format!("{voyage:?}"));
        }
        for bad in ["model", "model=xfs", "cuts=1,x", "fault=1:2", "path=1 colour=red", "fleet=a:Good:1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
