//! The simulator: the device's own decisions, procedures and environment codec on media that lose what was not made
//! durable. `device` is one device, `life` its life, `world` what is between two power-ons, `user` who asks, `medium` the
//! media and the plug, `loader` what runs before us, `fleet` the revisions and how they behave, `laws` the observers,
//! `saboteur` the doors with a broken row, `rows` who misses it and `fates` by which law, `procedures` single procedures,
//! `explore` and `suite` what is gone through.

pub mod chores;
pub mod device;
pub mod explore;
pub mod fates;
pub mod fleet;
pub mod r#gen;
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
mod user;
mod world;
