//! The life of one device: power-on after power-on until nothing is left to do. It stops where the medium has a choice
//! (the power went, or the system restarted) and can be copied there, so that every way on is gone from one place.

use crate::{
    device::{Buffers, End, Voyage, power_on},
    r#gen::Gen,
    laws::{Broken, Laws, copy_in_force, in_force},
    loader::LAYOUT,
    medium::{Bench, Bounds, Fault, Hardware},
    saboteur::Door,
    user::User,
};
use runtime::{journal, port::Volume};
use std::{
    collections::hash_map::DefaultHasher,
    fmt::Write,
    hash::{Hash, Hasher},
};

/// Power-ons after which a device must have come to rest.
const BOOTS_MAX: u32 = 40;

/// A device under way, without power.
#[derive(Clone)]
pub struct Life {
    /// What the next power-on finds.
    hardware: Hardware,
    laws: Laws,
    user: User,
    end: End,
    /// How much of what a cut after the first one may leave is gone through.
    later: Bounds,
    /// Cuts so far, each counted in effects from the one before.
    cuts: Vec<u64>,
    /// Effects up to the last of them.
    cut_at: u64,
    /// The power is gone, and not in an orderly way.
    dead: bool,
    resting: bool,
    over: bool,
    /// Cuts of which one state was drawn from several.
    drawn: u64,
    /// What the medium chose, for `Gen::repeat`.
    path: Vec<usize>,
    /// States that it came through.
    keys: Vec<u64>,
}

impl Life {
    /// A device fresh from the factory.
    pub fn new(voyage: &Voyage, fresh: &Hardware) -> Self {
        let mut hardware = fresh.clone();
        hardware.mutant = voyage.mutant;
        hardware.bounds = voyage.bounds;
        hardware.set_model(voyage.model);
        if let Some(model) = voyage.boot {
            hardware.set_model_of(Volume::Boot, model);
        }
        hardware.lie = voyage.lie;
        let cut_at = hardware.effects;
        Self {
            hardware,
            laws: Laws::of(voyage.origin.vars()),
            user: User::new(voyage),
            end: End::default(),
            later: voyage.later,
            cuts: vec![],
            cut_at,
            dead: false,
            resting: false,
            over: false,
            drawn: 0,
            path: vec![],
            keys: vec![],
        }
    }

    /// One power-on. In the next one, or in one that follows it, the power goes before this effect, counted from now.
    pub fn power_on(&mut self, fuse: Option<u64>, voyage: &Voyage, buffers: &mut Buffers) -> Result<(), Broken> {
        self.end.boots += 1;
        if self.end.boots > BOOTS_MAX {
            return Err(Broken { law: 0, observer: "rest", how: "the device does not come to rest".into() });
        }
        if let Some((_, damage)) = voyage.damage.filter(|(boot, _)| *boot == self.end.boots) {
            let before = copy_in_force(&self.hardware);
            self.hardware.damage(damage, LAYOUT.size);
            self.laws.damaged(damage, [before, copy_in_force(&self.hardware)]);
        }
        let bench = Bench::new(self.hardware.clone());
        bench.with(|hardware| {
            hardware.fuse = fuse;
            hardware.faulted = false;
            if let Some((_, fault)) = voyage.fault.filter(|(boot, _)| *boot == self.end.boots) {
                hardware.fault = Some(Fault { at: fault.at + hardware.calls, ..fault });
            }
        });
        self.laws.power_on(&bench, &voyage.fleet)?;
        let door = Door::new(&bench, voyage.mutant);
        let (laws, user, end) = (&mut self.laws, &mut self.user, &mut self.end);
        self.resting = power_on(&bench, &door, voyage, laws, user, end, buffers)?;
        door.tell(&mut self.end);
        self.hardware = bench.into_hardware();
        self.hardware.fuse = None;
        self.end.faulted |= self.hardware.faulted;
        self.dead = self.hardware.dead;
        // The original's script does not look whether its mark is there, and clears it before we can give a candidate up.
        if self.dead || self.hardware.is_one() && self.hardware.faulted {
            self.laws.three.cut();
        }
        if self.dead {
            self.end.cuts += 1;
            self.cuts.push(self.hardware.effects - self.cut_at);
            self.cut_at = self.hardware.effects;
        }
        Ok(())
    }

    /// The power went in the last power-on.
    pub fn is_cut(&self) -> bool {
        self.dead
    }

    /// In how many ways it can go on from here, and whether those are all that there are.
    pub fn ways(&self) -> (usize, bool) {
        if self.dead { self.hardware.cuts() } else { (self.hardware.restarts(), true) }
    }

    /// One of them.
    pub fn take(&mut self, way: usize) {
        self.path.push(way);
        if self.dead {
            self.hardware.cut_to(way);
            self.hardware.bounds = self.later;
        } else {
            self.hardware.restart_to(way);
        }
        self.over = self.resting && !self.dead && self.user.at_rest();
    }

    /// Power-ons so far.
    pub fn boots(&self) -> u64 {
        u64::from(self.end.boots)
    }

    /// Cuts so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.len() as u64
    }

    /// Of them, those of which only one state was gone on from, drawn from several.
    pub fn sampled(&self) -> u64 {
        self.drawn
    }

    /// Whether the fault came to pass.
    pub fn is_faulted(&self) -> bool {
        self.end.faulted
    }

    /// Effects of the hardware so far.
    pub fn effects(&self) -> u64 {
        self.hardware.effects
    }

    /// Effects since the last cut.
    pub fn since_cut(&self) -> u64 {
        self.hardware.effects - self.cut_at
    }

    /// Whether nothing is left to do; then what is left is looked at once more.
    pub fn is_over(&mut self, voyage: &Voyage) -> Result<bool, Broken> {
        if self.over {
            self.laws.power_on(&Bench::new(self.hardware.clone()), &voyage.fleet)?;
        }
        Ok(self.over)
    }

    /// Everything that decides what comes next and what the laws will say of it, in one number. An error: it has been
    /// here before, and would be here again for ever.
    pub fn key(&mut self, voyage: &Voyage) -> Result<u64, Broken> {
        let mut hasher = DefaultHasher::new();
        self.hardware.digest().hash(&mut hasher);
        self.user.digest(&mut hasher);
        let _ = write!(Words(&mut hasher), "{:?}", self.laws);
        (self.over, self.cuts.len()).hash(&mut hasher);
        // What is still to strike decides as well: when, and what it will be.
        let fault = voyage.fault.filter(|(boot, _)| *boot > self.end.boots);
        let damage = voyage.damage.filter(|(boot, _)| *boot > self.end.boots);
        if fault.is_some() || damage.is_some() {
            let _ = write!(Words(&mut hasher), "{} {fault:?} {damage:?}", self.end.boots);
        }
        let key = hasher.finish();
        if self.keys.contains(&key) {
            return Err(Broken { law: 0, observer: "rest", how: "the device comes back to a state for ever".into() });
        }
        self.keys.push(key);
        Ok(key)
    }

    /// What it came to.
    pub fn end(&self) -> End {
        let bench = Bench::new(self.hardware.clone());
        End {
            committed: in_force(&self.hardware).map(|vars| vars.committed),
            effects: self.hardware.effects,
            record: journal::load(&mut bench.journal()).ok().flatten(),
            verdicts: self.user.verdicts.clone(),
            told: self.user.told.clone(),
            ..self.end.clone()
        }
    }

    /// This life as a voyage and the choices of the medium.
    pub fn repeat(&self, voyage: &Voyage) -> (Voyage, String) {
        let path: Vec<String> = self.path.iter().map(usize::to_string).collect();
        (Voyage { cuts: self.cuts.clone(), ..voyage.clone() }, path.join(" "))
    }

    /// With these choices, as far as they go.
    pub fn follow(&mut self, voyage: &Voyage, choices: &[usize], buffers: &mut Buffers) -> Result<(), Broken> {
        let mut choices = choices.iter();
        loop {
            let fuse = voyage.cuts.get(self.cuts.len()).map(|cut| cut - self.since_cut());
            self.power_on(fuse, voyage, buffers)?;
            let Some(way) = choices.next() else { return Ok(()) };
            self.take(*way);
            if self.is_over(voyage)? {
                return Ok(());
            }
            self.key(voyage)?;
        }
    }

    /// To its end, with these cuts and choices. `seen`: gives a state's number; true if the rest of it is known.
    pub fn run(
        &mut self,
        voyage: &Voyage,
        choices: &mut Gen,
        buffers: &mut Buffers,
        seen: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), Broken> {
        let mut cuts = voyage.cuts[self.cuts.len()..].iter();
        let mut next = cuts.next().copied();
        loop {
            let fuse = next.map(|cut| cut - self.since_cut());
            self.power_on(fuse, voyage, buffers)?;
            if self.dead {
                next = cuts.next().copied();
                self.drawn += u64::from(self.ways() != (1, true));
            }
            self.take(choices.below(self.ways().0));
            if self.is_over(voyage)? || next.is_none() && seen(self.key(voyage)?) {
                return Ok(());
            }
        }
    }
}

/// Debug text into a hash, without keeping it.
struct Words<'h>(&'h mut DefaultHasher);

impl Write for Words<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
