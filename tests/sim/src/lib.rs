//! The simulator: the device's own decisions, procedures and environment codec on media that lose what was not made
//! durable, with a loader that is the model of the boot script. Observers hold it to the laws; mutants show that they
//! would notice. `device` is one device, `life` its life, `world` what is between two power-ons, `user` who asks,
//! `medium` the media and the plug, `loader` what runs before us, `fleet` the revisions and how they behave, `laws` the
//! observers, `taken` what is different on a device of the original, `saboteur` the doors with a broken row, `rows` who
//! misses it and `fates` by which law, `procedures` and `growth` single procedures, `explore` and `suite` what is gone
//! through, `evidence_rows` what is written down of it, `frozen` bytes that are only looked at.

pub mod chores;
pub mod device;
pub mod evidence_rows;
pub mod explore;
pub mod fates;
pub mod fleet;
pub mod frozen;
pub mod r#gen;
mod growth;
pub mod laws;
pub mod life;
pub mod loader;
pub mod medium;
pub mod observers;
mod procedures;
pub mod repeat;
pub mod rows;
pub mod saboteur;
pub mod suite;
pub mod table;
pub mod taken;
mod user;
mod world;
