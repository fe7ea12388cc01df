use std::collections::BTreeSet;

use super::*;

const SAMPLE: &str = include_str!("../../../../../dist/heirlock.toml");
const GUIDE: &str = include_str!("../../../../../docs/guide/capture-modes.md");

fn in_mode(mode: CaptureMode) -> CaptureSettings {
    CaptureSettings { mode, ..CaptureSettings::default() }
}

#[test]
fn the_sample_and_the_guide_explain_every_capture_mode_and_its_keys() {
    for mode in CaptureMode::ALL.all() {
        let name = mode.as_str();
        assert!(SAMPLE.lines().any(|line| line.starts_with(&format!("#   {name} "))), "{name}");
        assert!(GUIDE.contains(&format!("\n| `{name}`")), "{name}");
        // A key follows the remark that says for which mode it is.
        let begins = format!("# For \"{name}\": ");
        let explained = SAMPLE.split(&begins).skip(1).map(|remark| {
            let key = remark.lines().skip(1).find(|line| !line.starts_with('#')).unwrap();
            key.split(" = ").next().unwrap()
        });
        let keys: BTreeSet<&str> = mode.properties().keys.iter().map(|key| key.name).collect();
        assert_eq!(explained.collect::<BTreeSet<_>>(), keys, "{name}");
    }
}

#[test]
fn a_key_of_a_capture_mode_is_idle_in_every_other_one_and_only_where_it_is_set() {
    let set = |mode| CaptureSettings {
        mon_timeout: Duration::from_millis(300),
        when_unprotected: WhenUnprotected::Grant,
        port: 700,
        callout_timeout: Duration::from_secs(2),
        ..in_mode(mode)
    };
    for mode in CaptureMode::ALL.all() {
        assert!(in_mode(mode).idle_keys().is_empty(), "{mode:?}");
        let idle: Vec<&str> = set(mode).idle_keys().into_iter().map(|(key, _)| key).collect();
        let expected = mode.others(CaptureMode::ALL).into_iter().rev();
        let expected: Vec<&str> = expected.flat_map(|m| m.properties().keys).map(|key| key.name).collect();
        assert_eq!(idle, expected, "{mode:?}");
        for (key, meant) in set(mode).idle_keys() {
            assert!(meant.properties().keys.iter().any(|of_mode| of_mode.name == key), "{key}: {meant:?}");
        }
    }
}

#[test]
fn the_value_for_a_capture_mode_is_its_own_and_the_others_are_all_but_it() {
    let names = ForEach { watch: "watch", callout: "callout", nsm: "nsm" };
    for mode in CaptureMode::ALL.all() {
        assert_eq!(mode.choose(names), mode.as_str());
        let mut all = mode.others(names);
        assert!(!all.contains(&mode.as_str()), "{all:?}");
        all.push(mode.as_str());
        assert_eq!(BTreeSet::from_iter(all), BTreeSet::from(names.all()));
    }
}

#[test]
fn a_capture_mode_has_rpc_statd_or_takes_its_place_and_is_whole_only_where_it_closes_the_gap() {
    for mode in CaptureMode::ALL.all() {
        let properties = mode.properties();
        assert!(
            !(properties.is_status_monitor && properties.has_callout),
            "{mode:?}: whose callout would it be?"
        );
        // Where no registration waits for us, only a look can notice it, and soon only after a hint.
        let waits = properties.is_status_monitor || properties.has_callout;
        assert!(waits || properties.watches_directory, "{mode:?}");
        assert_eq!(properties.shares_before_telling, waits, "{mode:?}");
        assert!(!in_mode(mode).promise().is_whole || waits, "{mode:?}");
    }
}
