//! The folders of revisions where a loader reads them, on a device that was taken over: each stays one block.
//!
//! A loader that does not replay the file system's journal sees a folder of one block whole, before or after a change. One that
//! has just grown is written back block after block: names that moved into the new one may be hidden from the loader, the
//! committed revision's among them. So a revision is refused while its name, or what is done to it later, might make
//! `trails/` or the folder of local revisions in it grow; to collect revisions is never refused.
//!
//! Why the rule is enough: ext4 puts a name behind any other of the block that has so much room after it, and what a removed
//! name leaves goes to the one before. So `count` names leave `count` gaps, and if all of them together are `count` times
//! a name's length, one of them holds it, however they are spread.
//!
//! What it does not do: a folder that is longer already does not become shorter, and is not looked after.

use crate::{
    fault::{Code, Refusal},
    id::RevName,
    port::{Disk, Names},
};

/// Before a name while its folder is built or removed: `.new-`, `.del-`.
const PREFIX: usize = 5;
/// Before a local revision's name in `trails/`.
const LOCALS: &str = "locals/";
/// Names besides those of revisions that are there or come, and stay or go, until another revision is refused: the folder
/// of the new one while it is built, `current` and the one that takes its place, and one that a collection was cut in.
const COMING: usize = 4;

/// Refuses a revision for whose name there may be too little room.
pub(super) fn room<D: Disk>(disk: &mut D, rev: RevName) -> Result<(), Refusal> {
    let [trails, locals] = disk.trail_names()?;
    if holds(trails, locals, rev.as_str()) { Ok(()) } else { Err(Refusal::key(Code::TrailsFull, rev.as_str())) }
}

fn holds(trails: Option<Names>, locals: Option<Names>, rev: &str) -> bool {
    // It is built in `trails/`, and then renamed.
    let below = rev.strip_prefix(LOCALS);
    let in_locals = match (locals, below) {
        (Some(locals), Some(name)) => locals.has_gap(Names::size_of(name.len())),
        _ => true,
    };
    let Some(mut trails) = trails else { return in_locals };
    // A collection takes one name after the other out of the way; local ones come up from their own folder for that.
    let locals = locals.map_or(0, |locals| LOCALS.len() + locals.longest);
    let name = Names::size_of(PREFIX + rev.len().max(trails.longest).max(locals));
    trails.bytes += COMING * name;
    trails.count += COMING;
    in_locals && trails.has_gap(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    /// A block of 4 KiB with these names.
    fn block(names: &[&str]) -> Names {
        let mut block = Names::in_block(4096);
        [".", ".."].iter().chain(names).for_each(|name| block.add(name.len()));
        block
    }

    #[test]
    fn a_name_takes_its_head_and_whole_words() {
        assert_eq!([1, 2, 4, 5, 8, 9].map(Names::size_of), [12, 12, 12, 16, 16, 20]);
        let names = block(&["current", "locals", "0"]);
        assert_eq!((names.count, names.bytes, names.longest, names.room), (5, 12 + 12 + 16 + 16 + 12, 7, 4084));
    }

    #[test]
    fn some_gap_is_long_enough_if_all_together_are() {
        let names = Names { count: 4, bytes: 4084 - 4 * 20, longest: 8, room: 4084 };
        assert!(names.has_gap(20) && !names.has_gap(24));
        assert!(!Names { bytes: names.bytes + 1, ..names }.has_gap(20));
        assert!(!Names { bytes: 5000, ..names }.has_gap(12), "longer than there is room");
    }

    #[test]
    fn a_revision_is_refused_long_before_the_block_is_full() {
        let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let long = |count: usize| (0..count).map(|number| format!("{number:0>64}")).collect::<Vec<_>>();
        let held = |trails: usize, locals: &[String], rev: &str| {
            let mut names = vec!["locals", "current"];
            names.extend(numbers[..trails].iter().map(String::as_str));
            let locals: Vec<&str> = locals.iter().map(String::as_str).collect();
            holds(Some(block(&names)), Some(block(&locals)), rev)
        };
        let most = |fits: &dyn Fn(usize) -> bool| (0..200).take_while(|count| fits(*count)).count();
        let name = format!("locals/{}", "x".repeat(64));
        // What a collection keeps always finds room for one more, whatever the names.
        assert!(held(limits::KEPT_MAX, &long(limits::KEPT_MAX), &name));
        assert_eq!(most(&|count| held(count, &[], "77")), 104);
        assert_eq!(most(&|count| held(9, &long(count), &name)), 28);
        assert_eq!(most(&|count| held(9, &vec!["pvr-0123abcd".into(); count], "locals/pvr-0123abcd")), 101);
    }

    #[test]
    fn a_folder_that_is_longer_already_is_not_looked_after() {
        let full = Names { bytes: 4080, ..block(&[]) };
        assert!(holds(None, None, "1") && holds(None, Some(full), "1"));
        assert!(!holds(Some(full), None, "1"));
        assert!(!holds(None, Some(full), "locals/a"), "the other one is");
    }
}
