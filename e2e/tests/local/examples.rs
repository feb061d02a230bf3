//! Tests `examples/`: the resources, and the clients in five languages.

use std::path::{Path, PathBuf};
use std::process::Command;

use weir_e2e::cluster::Local;
use weir_e2e::wire::await_topic;

use super::own;

/// Orders per run of a client.
const ORDERS: usize = 10;

fn folder() -> PathBuf {
    weir_e2e::workspace().join("examples")
}

/// Each example starts a cluster and creates its topics.
#[test]
fn resources() {
    if !own() {
        return;
    }
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let examples: Vec<PathBuf> = files.filter(|file| file.is_file()).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        let yaml = std::fs::read_to_string(example).unwrap();
        let local = Local::start(Some(&yaml)).unwrap();
        // All resources are new.
        assert!(
            !local.printed().contains("unchanged") && !local.printed().contains("configured"),
            "{}",
            local.printed()
        );
        let listed: serde_json::Value =
            serde_json::from_str(&local.run(&["get", "topics", "-o", "json"]).unwrap()).unwrap();
        for topic in listed["items"].as_array().unwrap() {
            // With a declared group there is also the topic of committed offsets, whose name is not
            // legal in Kubernetes.
            let name =
                topic["spec"]["topicName"].as_str().or(topic["metadata"]["name"].as_str()).unwrap();
            await_topic(&local.bootstrap(), name, 1).unwrap();
        }
        // Applying the same file again changes nothing.
        assert!(!local.apply(&yaml).unwrap().contains("configured"));
    }
}

/// The languages with an example, sorted.
fn languages() -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("clients")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        folders.map(|folder| folder.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The example's program, built by `e2e/install`.
fn program(language: &str) -> Command {
    let (sources, clients) = (folder().join("clients").join(language), weir_e2e::clients());
    let mut command = match language {
        "go" => Command::new(clients.join("examples/go")),
        "java" => weir_e2e::tools::java(),
        "javascript" => Command::new("node"),
        "python" => Command::new(clients.join("python/bin/python")),
        "rust" => Command::new(clients.join("examples/rust/debug/orders")),
        other => panic!("nobody runs examples/clients/{other}"),
    };
    match language {
        "java" => {
            let [classes, jars] = ["examples/java", "java/libs/*"].map(|it| clients.join(it));
            let class_path = format!("{}:{}", classes.display(), jars.display());
            command.args(["-cp", &class_path, "Orders"])
        }
        "javascript" => command
            .env("NODE_PATH", clients.join("node/node_modules"))
            .arg(sources.join("orders.js")),
        "python" => command.arg(sources.join("orders.py")),
        _ => &mut command,
    };
    command
}

/// Runs an example with a time limit; returns whether it succeeded, its output, and its errors.
fn run(language: &str, arguments: &[&str]) -> (bool, String, String) {
    let example = program(language);
    let output = Command::new("timeout")
        .arg("60")
        .arg(example.get_program())
        .args(example.get_args())
        .args(arguments)
        .envs(example.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Runs `what` for all languages concurrently.
fn each(languages: &[String], what: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        languages.iter().for_each(|language| drop(scope.spawn(|| what(language))))
    });
}

/// The consumers' output for the orders of all languages.
fn orders(languages: &[String]) -> Vec<String> {
    let one = |order: usize| {
        move |language: &String| format!("customer-{} {{\"order\":{order}}} {language}", order % 5)
    };
    let mut all: Vec<String> =
        (0..ORDERS).flat_map(|order| languages.iter().map(one(order))).collect();
    all.sort();
    all
}

/// Each client reads what all have written, with key and header, and continues in its group at its
/// committed offset.
#[test]
fn clients() {
    if !own() {
        return;
    }
    let local = Local::start(None).unwrap();
    let bootstrap = local.bootstrap();
    let languages = languages();
    assert!(languages.len() >= 5, "{languages:?}");
    for _ in 0..2 {
        each(&languages, |language| {
            let (is_done, _, complaint) =
                run(language, &["produce", &bootstrap, "orders", &ORDERS.to_string()]);
            assert!(is_done, "{language}: {complaint}");
        });
        let wanted = orders(&languages);
        each(&languages, |language| {
            let count = wanted.len().to_string();
            let (is_done, printed, complaint) =
                run(language, &["consume", &bootstrap, "orders", language, &count]);
            let mut printed: Vec<&str> = printed.lines().collect();
            printed.sort_unstable();
            assert!(is_done && printed == wanted, "{language}: {printed:?}\n{complaint}");
        });
    }
}

/// A client reports a failed write and exits with an error.
#[test]
fn clients_say_what_is_not_written() {
    if !own() {
        return;
    }
    let local = Local::start(None).unwrap();
    each(&languages(), |language| {
        let (is_done, _, complaint) =
            run(language, &["produce", &local.bootstrap(), "no such name!", "3"]);
        assert!(
            !is_done
                && complaint.contains("3 orders are")
                && complaint.to_lowercase().contains("invalid"),
            "{language}: {complaint}"
        );
    });
}

/// The tests run the examples with the client packages of `e2e/clients`, so the examples must name
/// the same packages.
#[test]
fn examples_ask_for_what_is_installed() {
    let lines = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(weir_e2e::workspace().join(path)).unwrap();
        text.lines().map(|line| line.trim().trim_end_matches(',').to_owned()).collect()
    };
    let (examples, clients) = (Path::new("examples/clients"), Path::new("e2e/clients"));
    for (example, client, marks) in [
        ("java/pom.xml", "java/pom.xml", ["<kafka.version>", "<log4j.version>"]),
        (
            "javascript/package.json",
            "node/package.json",
            ["\"kafkajs\": \"", "\"kafkajs-snappy\": \""],
        ),
        ("python/requirements.txt", "python/requirements.txt", ["confluent-kafka==", "=="]),
    ] {
        let installed = lines(&clients.join(client));
        let asked: Vec<String> = lines(&examples.join(example));
        for mark in marks {
            let wanted: Vec<&String> = asked.iter().filter(|line| line.contains(mark)).collect();
            assert!(!wanted.is_empty(), "{example} does not ask for {mark}");
            assert!(
                wanted.iter().all(|line| installed.contains(line)),
                "{example}: {wanted:?}; {client} has others"
            );
        }
    }
}
