//! What is kept for the endpoint (`store::remember`): at every cut and every failing call the old or the new is there as a
//! whole, what was told as kept stays, and the next wish is fulfilled. Rules broken on purpose are found.

use runtime::{fault::Code, limits, port::Owner, store};
use simulator::{
    r#gen::Gen,
    medium::{Bench, Fault, Hardware, Mutant, Reach},
};

const OLD: &[u8] = &[1; 600];
const NEW: &[u8] = &[2; 1200];
const NEXT: &[u8] = &[3; 300];

/// A device on which something is kept.
fn device(mutant: Option<Mutant>) -> Bench {
    let bench = Bench::new(Hardware::new(4096));
    store::remember(&mut bench.clone(), Owner::Endpoint, OLD).expect("healthy media");
    bench.with(|hardware| {
        hardware.settle();
        hardware.mutant = mutant;
    });
    bench
}

fn kept(bench: &Bench) -> Result<Vec<u8>, Code> {
    let mut bytes = vec![0; limits::ENDPOINT_MEMORY_MAX];
    let length = store::recall(&mut bench.clone(), Owner::Endpoint, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// After a wish that ended as told, and then the power: what must hold.
fn judge(bench: &Bench, told: Result<(), Code>, how: &str) -> Result<(), String> {
    let found = kept(bench);
    let right = match told {
        Ok(()) => found.as_deref() == Ok(NEW),
        Err(_) => matches!(found.as_deref(), Ok(OLD | NEW)),
    };
    let lengths = found.map(|bytes| bytes.len());
    let went_on =
        store::remember(&mut bench.clone(), Owner::Endpoint, NEXT).is_ok() && kept(bench).as_deref() == Ok(NEXT);
    match (right, went_on) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("{how}: told {told:?}, found {lengths:?} bytes")),
        _ => Err(format!("{how}: the next wish was not fulfilled")),
    }
}

/// The power goes before every effect, and after the last; with every fate of what was pending. How many states.
fn cut_everywhere(mutant: Option<Mutant>) -> Result<u64, String> {
    let mut states = 0;
    for at in 0.. {
        let (mut choices, mut came) = (Gen::all(), false);
        loop {
            let bench = device(mutant);
            bench.with(|hardware| hardware.fuse = Some(at));
            let told = store::remember(&mut bench.clone(), Owner::Endpoint, NEW);
            bench.with(|hardware| {
                came |= hardware.dead;
                hardware.fuse = None;
                hardware.cut(&mut choices);
                hardware.mount();
                hardware.mutant = None;
            });
            judge(&bench, told, &format!("cut before effect {at}, {}", choices.line()))?;
            states += 1;
            if !choices.advance() {
                break;
            }
        }
        if !came {
            return Ok(states);
        }
    }
    unreachable!("the effects of one wish end")
}

/// Every call fails, once or from then on; then the power goes, or does not. How many states.
fn fail_everywhere(mutant: Option<Mutant>) -> Result<u64, String> {
    let mut states = 0;
    for (code, sticky) in [(Code::StorageIo, false), (Code::NoSpace, false), (Code::StorageIo, true)] {
        for at in 0.. {
            let (mut choices, mut came) = (Gen::all(), false);
            loop {
                let bench = device(mutant);
                bench.with(|hardware| {
                    hardware.fault = Some(Fault { at: hardware.calls + at, sticky, code, reach: Reach::Part })
                });
                let told = store::remember(&mut bench.clone(), Owner::Endpoint, NEW);
                bench.with(|hardware| {
                    came |= hardware.faulted;
                    hardware.fault = None;
                });
                let how = format!("{code} at call {at}, sticky {sticky}");
                let found = kept(&bench);
                if !matches!(found.as_deref(), Ok(OLD | NEW)) {
                    return Err(format!("{how}: without a cut {:?} bytes", found.map(|bytes| bytes.len())));
                }
                bench.with(|hardware| {
                    hardware.cut(&mut choices);
                    hardware.mount();
                    hardware.mutant = None;
                });
                judge(&bench, told, &format!("{how}, {}", choices.line()))?;
                states += 1;
                if !choices.advance() {
                    break;
                }
            }
            if !came {
                break;
            }
        }
    }
    Ok(states)
}

#[test]
fn the_old_or_the_new_is_kept_whatever_happens() {
    let again = "seed 1, repeat: cargo test -p simulator --test endpoint_memory the_old_or_the_new";
    let whole = |states: Result<u64, String>| states.unwrap_or_else(|how| panic!("{how}\n{again}"));
    let (cut, failed) = (whole(cut_everywhere(None)), whole(fail_everywhere(None)));
    println!("{cut} states after cuts, {failed} after failures");
    assert!(cut > 10 && failed > 20);
}

#[test]
fn each_rule_is_missed_when_it_is_broken() {
    for mutant in [Mutant::NoFileSync, Mutant::NoDirectorySync] {
        let found = cut_everywhere(Some(mutant)).expect_err("nobody misses that rule");
        println!("{mutant:?}: {found}");
    }
    let found = fail_everywhere(Some(Mutant::UncheckedSync)).expect_err("nobody misses that rule");
    println!("UncheckedSync: {found}");
}

#[test]
fn nothing_kept_is_nothing_and_too_much_is_damage() {
    let bench = Bench::new(Hardware::new(4096));
    assert_eq!(kept(&bench), Ok(vec![]));
    store::remember(&mut bench.clone(), Owner::Endpoint, &[7; limits::ENDPOINT_MEMORY_MAX + 1]).unwrap();
    assert_eq!(kept(&bench), Err(Code::StorageDamaged));
}
