//! What a whole update may cost (design 11): environment stores and syncs, counted at the doors, from the first byte
//! that arrives to the durable DONE, whatever the number of objects.

use tests::sim::{
    device::{Voyage, first},
    explore::{Count, Yard},
    fleet::{Quality, Revision},
    r#gen::Gen,
    loader::Skill,
};

#[test]
fn an_update_takes_at_most_three_stores_and_ten_syncs() {
    for base in [0, 1] {
        let fleet = vec![first(), Revision::new("locals/a", Quality::Good, base, 1)];
        let voyage = Voyage { fleet, skill: Skill::Counts, cuts: vec![], fault: None, mutant: None };
        let end = Yard::new().sail(&voyage, &mut Gen::random(1), &mut Count::default()).unwrap();
        println!("{}: {} stores, {} syncs", if base == 0 { "in place" } else { "by reboot" }, end.stores, end.syncs);
        assert_eq!(end.stores, 2);
        assert!(end.syncs <= 10, "{}", end.syncs);
    }
}
