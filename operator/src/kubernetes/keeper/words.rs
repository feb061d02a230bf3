//! PURE: messages of Kubernetes in the words that a person needs.

/// Parts of messages, separated by colons, that say only who passes the error on.
const PASSED_ON: [&str; 14] = [
    "Back-off pulling image",
    "ErrImagePull",
    "Error response from daemon",
    "rpc error",
    "failed to pull and unpack image",
    "failed to resolve reference",
    "failed to resolve image",
    "failed to do request",
    "failed to create containerd task",
    "failed to create shim task",
    "failed to start container",
    "OCI runtime create failed",
    "runc create failed",
    "unable to start container process",
];

/// What is left of an error of the kubelet, the container runtime or runc once the parts are
/// dropped that only pass it on. Empty if it says nothing else.
pub(super) fn shortened(message: &str) -> String {
    let parts = message.trim().split(": ").filter_map(|part| {
        // gRPC puts its code in front of the next part.
        let part = match part.strip_prefix("code = ").and_then(|code| code.split_once(" desc = ")) {
            Some((_, said)) => said,
            None => part,
        };
        let is_noise = part == "unknown"
            || part == "error during container init"
            || PASSED_ON.iter().any(|noise| part.starts_with(noise));
        (!is_noise && !part.is_empty()).then_some(part)
    });
    parts.collect::<Vec<_>>().join(": ")
}

/// A refusal of the API server without what it calls the value where it shows none: for instance
/// `spec.x: Invalid value: "": must be y` is `spec.x: must be y`.
pub(super) fn in_words(message: &str) -> String {
    let values = ["\"\"", "\"object\"", "\"array\"", "null"];
    values.iter().fold(message.to_owned(), |said, value| {
        said.replace(&format!("Invalid value: {value}: "), "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_were_passed_on_say_what_is_wrong() {
        let pulled = "failed to pull and unpack image \"docker.io/library/no:1\": failed to resolve reference \"docker.io/library/no:1\": docker.io/library/no:1: not found";
        let found = "docker.io/library/no:1: not found";
        let by_grpc = format!("rpc error: code = NotFound desc = {pulled}");
        let backed_off = format!("Back-off pulling image \"no:1\": ErrImagePull: {by_grpc}");
        let rows = [
            ("m", "m"),
            (pulled, found),
            (by_grpc.as_str(), found),
            (backed_off.as_str(), found),
            ("Back-off pulling image \"no:1\"", ""),
            (
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"/no\": stat /no: no such file or directory: unknown",
                "exec: \"/no\": stat /no: no such file or directory",
            ),
        ];
        for (message, expected) in rows {
            assert_eq!(shortened(message), expected);
        }
    }

    #[test]
    fn a_refusal_names_no_value_where_there_is_none() {
        let refused = "StatefulSet.apps \"c\" is invalid: [spec.template.spec.containers[1].image: Required value, spec.template.spec.nodeName: Invalid value: \"\": must be a name, spec: Invalid value: \"object\": no]";
        assert_eq!(
            in_words(refused),
            "StatefulSet.apps \"c\" is invalid: [spec.template.spec.containers[1].image: Required value, spec.template.spec.nodeName: must be a name, spec: no]"
        );
        let shown = "spec.x: Invalid value: \"7\": no";
        assert_eq!(in_words(shown), shown);
    }
}
