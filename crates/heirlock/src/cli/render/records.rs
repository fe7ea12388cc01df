//! Records, and the results of moving them, as text.

use heirlock_core::Outcome;

use super::super::records::{Exported, Imported, Left, Record, RecordList, ServiceLine};
use super::table::Side;
use super::{Look, Table, counted, plain, wrapped};

/// The services of the store.
pub(in crate::cli) fn services(services: &[ServiceLine], look: &Look) -> String {
    if services.is_empty() {
        return "the store holds no service yet\n".to_owned();
    }
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("OWNER", Side::Left),
        ("GENERATION", Side::Right),
        ("STATE NUMBER", Side::Right),
        ("CLIENTS", Side::Right),
        ("UNREADABLE", Side::Right),
    ]);
    for service in services {
        let owner = match service.released {
            true => format!("({}, released)", service.owner),
            false => service.owner.to_string(),
        };
        table.row(vec![
            service.service.to_string(),
            owner,
            service.generation.to_string(),
            service.state_number.map_or_else(|| "-".to_owned(), |state| state.to_string()),
            service.records.to_string(),
            service.damaged.to_string(),
        ]);
    }
    table.lines(look).join("\n") + "\n"
}

/// The records of a service.
pub(in crate::cli) fn records(list: &RecordList, look: &Look) -> String {
    let mut text = format!(
        "{}, generation {}: {}\n",
        look.strong(list.service.as_str()),
        list.generation,
        counted(list.records.len(), "record")
    );
    if !list.records.is_empty() {
        let mut table = Table::new(&[
            ("CLIENT", Side::Left),
            ("NAME", Side::Left),
            ("ON RECORD SINCE", Side::Right),
            ("LAST ADOPTION", Side::Left),
        ]);
        for record in &list.records {
            table.row(vec![
                plain(&record.client),
                names_besides(&record.client, &record.names),
                record.since_s.map_or_else(|| "-".to_owned(), |since_s| look.local_minute(since_s)),
                record.outcome.map_or_else(|| "-".to_owned(), |outcome| outcome.to_string()),
            ]);
        }
        text.push_str(&(table.lines(look).join("\n") + "\n"));
    }
    text + &left("can't be read, and was left alone", &list.left, look)
}

/// The names of a client that are not what it is shown by already.
fn names_besides(client: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != client).collect();
    if names.is_empty() { "-".to_owned() } else { plain(&names.join(" ")) }
}

/// One record, decoded and raw.
pub(in crate::cli) fn record(record: &Record, look: &Look) -> String {
    let mut text = format!(
        "{} of {}, generation {}\n",
        look.strong(&plain(&record.client)),
        record.service,
        record.generation
    );
    if !record.names.is_empty() {
        text.push_str(&format!("  registered as {}\n", plain(&record.names.join(", "))));
    }
    if let Some(since_s) = record.since_s {
        text.push_str(&format!("  on record since {}\n", look.local_time(since_s)));
    }
    if let Some(outcome) = &record.outcome {
        let why = outcome.why.as_deref().map(|why| format!(": {}", plain(why))).unwrap_or_default();
        let word = outcome.outcome.to_string();
        let word = if outcome.outcome <= Outcome::Acknowledged { look.good(&word) } else { look.bad(&word) };
        text.push_str(&wrapped("  ", &format!("in the adoption that began it: {word}{why}")));
    }
    for (number, line) in (1..).zip(&record.lines) {
        text.push_str(&format!("\nline {number}\n"));
        for (key, value) in [
            ("client", plain(&line.client)),
            ("server", plain(&line.server)),
            (
                "downcall",
                format!("program {}, version {}, procedure {}", line.program, line.version, line.procedure),
            ),
            ("cookie", line.cookie.clone()),
        ] {
            text.push_str(&format!("  {key:<10}{value}\n"));
        }
    }
    if !record.problems.is_empty() {
        text.push('\n');
    }
    for problem in &record.problems {
        text.push_str(&wrapped("", &look.bad(&plain(problem))));
    }
    text.push_str("\nraw\n");
    for line in record.raw.lines() {
        text.push_str(&(plain(line) + "\n"));
    }
    text
}

/// The result of an export, as text.
pub(in crate::cli) fn exported(exported: &Exported, look: &Look) -> String {
    let directory = plain(&exported.directory);
    let mut text = format!(
        "{}, generation {}: wrote {} to {directory}\n",
        look.strong(exported.service.as_str()),
        exported.generation,
        counted(exported.records, "record"),
    );
    text.push_str(&match exported.state_number {
        Some(state) => format!("state number {state}; sm-notify counts on from it\n"),
        None => {
            wrapped("", "no state number is known: write one that was never sent before sm-notify is run")
        }
    });
    let address = exported.address.as_deref().unwrap_or("ADDRESS");
    let tell = format!("while grace is open, 'sm-notify -f -P {directory} -v {address}' tells its clients");
    text.push_str(&wrapped("", &tell));
    text + &left("can't be read, and is not in it", &exported.left, look)
}

/// The result of an import, as text.
pub(in crate::cli) fn imported(imported: &Imported, look: &Look) -> String {
    let mut text = format!(
        "{}, generation {}: {} of {} imported, {} known before\n",
        look.strong(imported.service.as_str()),
        imported.generation,
        counted(imported.imported.len(), "client"),
        plain(&imported.directory),
        imported.known,
    );
    for client in &imported.imported {
        text.push_str(&format!("  {}\n", plain(client)));
    }
    if !imported.unresolved.is_empty() {
        text.push_str(&format!(
            "\n{}\n",
            look.bad("no address is known, so they can't be told of an adoption")
        ));
        for client in &imported.unresolved {
            text.push_str(&format!("  {}\n", plain(client)));
        }
        text.push_str("  what to do: give the name an address (/etc/hosts) and import again\n");
    }
    if !imported.peers.is_empty() {
        text.push_str(
            "\nthis server mounts from them and they don't mount from it, so they are no clients\n",
        );
        for peer in &imported.peers {
            text.push_str(&format!("  {}\n", plain(peer)));
        }
    }
    text.push_str(&left("was left alone", &imported.left, look));
    text.push_str(&format!(
        "\nthe service has {} now, and the state number {}\n",
        counted(imported.records, "record"),
        imported.state_number
    ));
    text + &format!("'heirlock adopt {}' takes it over\n", imported.service)
}

fn left(what: &str, left: &[Left], look: &Look) -> String {
    if left.is_empty() {
        return String::new();
    }
    let lines =
        left.iter().map(|left| wrapped("  ", &format!("{}: {}", plain(&left.what), plain(&left.why))));
    format!("\n{}\n", look.bad(what)) + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use heirlock_core::takeover::OutcomeLine;
    use heirlock_core::{Generation, RecordKey, ServiceName};

    use super::super::super::records::Line;
    use super::super::tests::look;
    use super::*;

    fn nfs() -> ServiceName {
        ServiceName::parse("nfs").unwrap()
    }

    fn damaged() -> Vec<Left> {
        vec![Left { what: "sm/x\u{1b}".into(), why: "expected a monitor record, found an empty file".into() }]
    }

    #[test]
    fn an_import_says_what_came_what_did_not_and_what_is_next() {
        let value = Imported {
            service: nfs(),
            generation: Generation(3),
            state_number: 9,
            directory: "/var/lib/nfs".into(),
            imported: vec!["192.0.2.1".into(), "client2".into()],
            known: 4,
            records: 6,
            peers: vec!["192.0.2.7".into()],
            unresolved: vec!["client2".into()],
            left: damaged(),
        };
        let expected = "\
nfs, generation 3: 2 clients of /var/lib/nfs imported, 4 known before
  192.0.2.1
  client2

no address is known, so they can't be told of an adoption
  client2
  what to do: give the name an address (/etc/hosts) and import again

this server mounts from them and they don't mount from it, so they are no clients
  192.0.2.7

was left alone
  sm/x\\u{1b}: expected a monitor record, found an empty file

the service has 6 records now, and the state number 9
'heirlock adopt nfs' takes it over
";
        assert_eq!(imported(&value, &look()), expected);
    }

    #[test]
    fn an_export_says_how_its_clients_are_told() {
        let mut value = Exported {
            service: nfs(),
            generation: Generation(3),
            state_number: Some(9),
            records: 1,
            directory: "/root/nfs".into(),
            address: Some("192.0.2.10".into()),
            left: Vec::new(),
        };
        let expected = "\
nfs, generation 3: wrote 1 record to /root/nfs
state number 9; sm-notify counts on from it
while grace is open, 'sm-notify -f -P /root/nfs -v 192.0.2.10' tells its clients
";
        assert_eq!(exported(&value, &look()), expected);
        value.state_number = None;
        value.left = damaged();
        let text = exported(&value, &look());
        assert!(text.contains("no state number is known: "), "{text}");
        assert!(text.ends_with("\ncan't be read, and is not in it\n  sm/x\\u{1b}: expected a monitor record, found an empty file\n"), "{text}");
    }

    #[test]
    fn a_record_is_shown_decoded_and_raw() {
        let outcome = OutcomeLine {
            why: Some("no answer".into()),
            ..OutcomeLine::new(RecordKey::parse("192.0.2.1").unwrap(), Outcome::Unreachable, 9)
        };
        let value = Record {
            service: nfs(),
            generation: Generation(3),
            client: "192.0.2.1".into(),
            names: vec!["client1".into()],
            since_s: Some(look().now_s),
            lines: vec![Line {
                client: "client1".into(),
                server: "nfs-a".into(),
                program: 100_021,
                version: 3,
                procedure: 16,
                cookie: "99".into(),
            }],
            problems: vec!["line 2, line: expected 69 characters and two names, found \"x\"".into()],
            outcome: Some(outcome),
            raw: "0100007f client1 nfs-a\nx\u{1b}[2J\n".into(),
        };
        let expected = "\
192.0.2.1 of nfs, generation 3
  registered as client1
  on record since 2026-11-25 10:30:00
  in the adoption that began it: unreachable: no answer

line 1
  client    client1
  server    nfs-a
  downcall  program 100021, version 3, procedure 16
  cookie    99

line 2, line: expected 69 characters and two names, found \"x\"

raw
0100007f client1 nfs-a
x\\u{1b}[2J
";
        assert_eq!(record(&value, &look()), expected);
    }

    #[test]
    fn an_empty_store_says_so() {
        assert_eq!(services(&[], &look()), "the store holds no service yet\n");
    }
}
