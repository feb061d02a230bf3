//! Whether brokers can read the mapping rules of a cluster's listeners. A broker does not start
//! with others, and the schema of the resource cannot tell.

use weir_crds::Listener;
use weir_security::principal::MappingRules;

/// The field with the first rules that a broker could not read, and why.
pub(crate) fn unreadable(listeners: &[Listener]) -> Option<String> {
    listeners.iter().find_map(|listener| {
        let clients = listener.tls.as_ref()?.client_authentication.as_ref()?;
        let error = MappingRules::parse(clients.principal_mapping_rules.as_ref()?).err()?;
        let field = "tls.clientAuthentication.principalMappingRules";
        Some(format!("spec.listeners[{}].{field}: {error}", listener.name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(rules: &Value) -> Option<String> {
        let clients = json!({"caSecret": {"name": "cas"}, "principalMappingRules": rules});
        let tls = json!({"name": "tls", "port": 2, "tls": {"clientAuthentication": clients}});
        let listeners = json!([{"name": "plain", "port": 1}, tls]);
        unreadable(&serde_json::from_value::<Vec<Listener>>(listeners).unwrap())
    }

    #[test]
    fn rules_that_no_broker_reads_are_named() {
        for good in [json!(null), json!("DEFAULT"), json!("RULE:^CN=(.*?),.*$/$1/L,DEFAULT")] {
            assert_eq!(told(&good), None, "{good}");
        }
        for bad in ["RULE:^(a+$/x/", "RULE:(?=a)a/b/"] {
            let told = told(&json!(bad)).unwrap();
            let field = "spec.listeners[tls].tls.clientAuthentication.principalMappingRules: ";
            assert!(told.starts_with(field) && told.contains("Invalid rule"), "{told}");
        }
    }
}
