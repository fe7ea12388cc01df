//! Which of several servers adopts the services of a dead one.

use heirlock_core::candidates::Candidates;

use super::meeting::{NAMES, settings_of_three, store_of_three};
use super::several::Several;
use super::*;
use crate::control::report::{Next, ServiceStatus, judge};

/// Three services of nfs-a, which has a fence, with these candidates.
fn configured(groups: &[&[&str]]) -> Settings {
    let mut settings = (*settings_of_three()).clone();
    let group = |names: &&[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let candidates = Candidates::new(groups.iter().map(group).collect()).unwrap();
    for service in &mut settings.services {
        (service.mode, service.candidates) = (Mode::Automatic, Some(candidates.clone()));
    }
    settings.hooks.fence = settings.lock_manager.recognise.clone();
    settings
}

/// nfs-a has beaten for a while, and does no more.
fn after_the_death_of_nfs_a(servers: &[&str], beating: &[&'static str], groups: &[&[&str]]) -> Several {
    let mut several = Several::on(store_of_three(), servers, &configured(groups));
    several.beating = beating.iter().chain(&["nfs-a"]).map(|server| (*server, 0)).collect();
    several.goes_on(Duration::from_secs(25));
    several.beating.remove("nfs-a");
    several
}

fn owners(several: &Several) -> Vec<String> {
    NAMES.iter().map(|name| several.owner_of(name).unwrap()).collect()
}

fn all_are_adopted(several: &Several) -> bool {
    owners(several).iter().all(|owner| owner != "nfs-a") && several.agents.iter().all(Agent::is_at_rest)
}

fn service_of(agent: &Agent<Here>) -> ServiceStatus {
    let mut status = agent.status();
    judge(&mut status);
    status.services.into_iter().find(|of| of.service == NAMES[0]).unwrap()
}

#[test]
fn equally_preferred_servers_share_the_services_of_a_dead_one_and_each_fences_it_once() {
    let mut several = after_the_death_of_nfs_a(&["nfs-b", "nfs-c"], &[], &[&["nfs-b", "nfs-c"]]);
    several.until("all are adopted", all_are_adopted);
    let owners = owners(&several);
    let of = |server: &str| owners.iter().filter(|owner| *owner == server).count();
    assert_eq!((of("nfs-b"), of("nfs-c")), (2, 1), "{owners:?}");
    assert_eq!(several.begun("fence"), [1, 1]);
    let generations: Vec<u64> = NAMES
        .iter()
        .map(|name| several.store.newest_claim(&service(name)).unwrap().unwrap().generation.0)
        .collect();
    assert_eq!(generations, [2; 3], "no server claimed what another one had claimed");
}

#[test]
fn the_preferred_server_adopts_all_and_the_other_one_does_nothing() {
    let mut several = after_the_death_of_nfs_a(&["nfs-b", "nfs-c"], &[], &[&["nfs-c"], &["nfs-b"]]);
    several.until("all are adopted", all_are_adopted);
    assert_eq!(owners(&several), ["nfs-c"; 3]);
    assert_eq!(several.begun("fence"), [0, 1]);
}

#[test]
fn a_preferred_server_that_does_not_act_has_its_time_and_the_next_one_adopts_then() {
    let mut several = after_the_death_of_nfs_a(&["nfs-b"], &["nfs-c"], &[&["nfs-c"], &["nfs-b"]]);
    let died_at = several.now();
    several.until("it is left to nfs-c", |several| service_of(&several.agents[0]).left_to.is_some());
    let of = service_of(&several.agents[0]);
    assert!(of.left_to.as_ref().unwrap().starts_with("nfs-c comes before this server"), "{of:?}");
    assert_eq!(of.next, Some(Next::Wait));
    several.until("all are adopted", all_are_adopted);
    assert_eq!(owners(&several), ["nfs-b"; 3]);
    assert_eq!(several.begun("fence"), [1]);
    let waited = several.now().since(died_at);
    let of = configured(&[&["nfs-b"]]).heartbeat;
    assert!(waited >= of.dead_after + of.candidate_time, "{waited:?}");
    assert_eq!(service_of(&several.agents[0]).left_to, None);
}

#[test]
fn a_preferred_server_that_is_silent_as_well_is_not_waited_for() {
    let mut several = after_the_death_of_nfs_a(&["nfs-b"], &["nfs-c"], &[&["nfs-c"], &["nfs-b"]]);
    several.beating.remove("nfs-c");
    let died_at = several.now();
    several.until("nfs-b fences", |several| several.begun("fence") == [1]);
    let waited = several.now().since(died_at);
    assert!(waited < configured(&[&["nfs-b"]]).heartbeat.candidate_time, "{waited:?}");
}

#[test]
fn a_server_that_is_no_candidate_adopts_nothing_and_says_where_none_of_them_lives() {
    let mut several = after_the_death_of_nfs_a(&["nfs-b"], &[], &[&["nfs-c"], &["nfs-d"]]);
    several.goes_on(Duration::from_secs(600));
    assert_eq!(owners(&several), ["nfs-a"; 3]);
    assert_eq!(several.begun("fence"), [0]);
    let of = service_of(&several.agents[0]);
    assert!(of.lacks_candidates && of.left_to.unwrap().contains("nfs-c > nfs-d"));
    assert_eq!(of.next, Some(Next::AdoptFenced), "a person has to");
}
