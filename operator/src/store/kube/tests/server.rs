//! An API server in memory: objects by path, with the versions, preconditions and refusals that the
//! operator meets. It has no schema and no defaults.
//!
//! Its behaviour follows Kubernetes' `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`
//! and `pkg/registry/generic/registry/store.go`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use uuid::Uuid;

/// The server. Clones share its objects.
#[derive(Clone, Default)]
pub(crate) struct Server {
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Requests other than reads.
    writes: Vec<String>,
    /// The number of listed objects.
    listed: usize,
    refusals: Vec<Refusal>,
    /// Writes by somebody else just before the next request of this method and path is answered.
    races: Vec<(String, String, Value)>,
    /// The same as merge patches, before the next patch of the object of this path.
    raced_patches: Vec<(String, Value)>,
    /// The events of a watch of everything since they were last taken.
    events: Vec<Watched>,
}

/// An event of a watch.
pub(crate) struct Watched {
    pub(crate) path: String,
    /// The object, or its last version.
    pub(crate) object: Value,
    pub(crate) is_deleted: bool,
}

struct Refusal {
    method: String,
    path: String,
    code: u16,
    message: String,
}

type Answer = Result<Value, (u16, &'static str, String)>;

impl Server {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// Somebody else writes an object.
    pub(crate) fn put(&self, path: &str, object: &Value) {
        self.held().put(path, object.clone());
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.held().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        self.held().remove(path);
    }

    /// The events of a watch of everything since the last call, in their order.
    pub(crate) fn take_events(&self) -> Vec<Watched> {
        std::mem::take(&mut self.held().events)
    }

    /// Deletes an object; as Kubernetes' garbage collector does, also every object that has it as
    /// its only owner.
    pub(crate) fn delete_with_dependents(&self, path: &str) {
        let mut held = self.held();
        let owner = held.objects.remove(path).unwrap()["metadata"]["uid"].clone();
        held.objects.retain(|_, object| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_none_or(|owners| {
                owners.is_empty() || owners.iter().any(|one| one["uid"] != owner)
            })
        });
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.held().objects.keys().cloned().collect()
    }

    /// The writes since the last call, as `METHOD path`.
    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.held().writes)
    }

    /// The number of objects listed since the last call.
    pub(crate) fn take_listed(&self) -> usize {
        std::mem::take(&mut self.held().listed)
    }

    /// Refuses each such request for the object of this path, until [`Self::allow_all`].
    pub(crate) fn refuse(&self, method: &str, path: &str, code: u16, message: &str) {
        let (method, path, message) = (method.to_owned(), path.to_owned(), message.to_owned());
        self.held().refusals.push(Refusal { method, path, code, message });
    }

    pub(crate) fn allow_all(&self) {
        self.held().refusals.clear();
    }

    /// Somebody else writes an object just before the next such request comes.
    pub(crate) fn race(&self, method: &str, path: &str, object: &Value) {
        self.held().races.push((method.to_owned(), path.to_owned(), object.clone()));
    }

    /// Somebody else patches an object, if it exists.
    pub(crate) fn merge(&self, path: &str, patch: &Value) {
        let mut held = self.held();
        if let Some(mut object) = held.objects.get(path).cloned() {
            merge(&mut object, patch, false);
            held.put(path, object);
        }
    }

    /// Somebody else patches an object just before its next patch comes.
    pub(crate) fn race_by_patch(&self, path: &str, patch: Value) {
        self.held().raced_patches.push((path.to_owned(), patch));
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let is_apply = parts
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.to_str().unwrap().contains("apply-patch"));
        let query = parts
            .uri
            .query()
            .unwrap_or_default()
            .replace("%2F", "/")
            .replace("%3D", "=")
            .replace("%2C", ",");
        let (code, answer) = match self.held().answer(
            &parts.method,
            parts.uri.path(),
            &query,
            is_apply,
            body,
        ) {
            Ok(answer) => (200, answer),
            Err((code, reason, message)) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message});
                (code, status)
            }
        };
        let body = Body::from(serde_json::to_vec(&answer).unwrap());
        Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    }
}

impl Held {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(path);
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        if let Some(namespace) =
            path.split_once("/namespaces/").and_then(|(_, after)| after.split('/').next())
        {
            metadata["namespace"] = json!(namespace);
        }
        if metadata.get("uid").is_none_or(Value::is_null) {
            metadata["uid"] = json!(Uuid::from_u128(u128::from(self.version) << 64).to_string());
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let is_new_spec = before.is_none_or(|before| before.get("spec") != object.get("spec"));
        let generation = before
            .and_then(|before| before.pointer("/metadata/generation")?.as_i64())
            .unwrap_or_default();
        if object.get("spec").is_some() {
            object["metadata"]["generation"] = json!(generation + i64::from(is_new_spec));
        }
        self.objects.insert(path.to_owned(), object.clone());
        let told = object.clone();
        self.events.push(Watched { path: path.to_owned(), object: told, is_deleted: false });
        object
    }

    fn remove(&mut self, path: &str) {
        if let Some(object) = self.objects.remove(path) {
            self.events.push(Watched { path: path.to_owned(), object, is_deleted: true });
        }
    }

    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        is_apply: bool,
        body: Value,
    ) -> Answer {
        if let Some(at) =
            self.races.iter().position(|(of, raced, _)| of == method.as_str() && raced == path)
        {
            let (_, _, object) = self.races.remove(at);
            let path = match method {
                &Method::POST => format!("{path}/{}", object["metadata"]["name"].as_str().unwrap()),
                _ => path.to_owned(),
            };
            self.put(&path, object);
        }
        if method == Method::PATCH
            && let Some(at) = self.raced_patches.iter().position(|(raced, _)| raced == path)
        {
            let (_, patch) = self.raced_patches.remove(at);
            if let Some(mut object) = self.objects.get(path).cloned() {
                merge(&mut object, &patch, false);
                self.put(path, object);
            }
        }
        if method != Method::GET {
            self.writes.push(format!("{method} {path}"));
        }
        let object = match body["metadata"]["name"].as_str() {
            Some(name) if *method == Method::POST => format!("{path}/{name}"),
            _ => path.to_owned(),
        };
        let refuses =
            |refusal: &&Refusal| refusal.method == method.as_str() && refusal.path == object;
        if let Some(refusal) = self.refusals.iter().find(refuses) {
            return Err((refusal.code, "Refused", refusal.message.clone()));
        }
        match *method {
            Method::GET => self.read(path, query),
            Method::POST => {
                let path =
                    format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or("unnamed"));
                if self.objects.contains_key(&path) {
                    return Err((409, "AlreadyExists", format!("{path} already exists")));
                }
                let mut body = body;
                // It drops an unknown field (`unknown` here) unless the request asks for strict
                // validation.
                let unknown = body["spec"].as_object_mut().and_then(|spec| spec.remove("unknown"));
                if unknown.is_some() && query.contains("fieldValidation=Strict") {
                    return Err((
                        400,
                        "BadRequest",
                        "strict decoding error: unknown field \"spec.unknown\"".to_owned(),
                    ));
                }
                body["metadata"]["managedFields"] = managed(query, "Update");
                Ok(self.put(&path, body))
            }
            Method::PUT => {
                self.check(path, &body)?;
                Ok(self.put(path, body))
            }
            Method::PATCH => self.patch(path.trim_end_matches("/status"), query, is_apply, body),
            Method::DELETE => {
                self.check(
                    path,
                    &json!({"metadata": body.get("preconditions").cloned().unwrap_or_default()}),
                )?;
                self.remove(path);
                Ok(
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
                )
            }
            _ => Err((405, "MethodNotAllowed", method.to_string())),
        }
    }

    fn read(&mut self, path: &str, query: &str) -> Answer {
        if let Some(object) = self.objects.get(path) {
            return Ok(object.clone());
        }
        // The path of a collection ends with the plural of its kind, that of an object with its
        // name.
        let in_namespace =
            path.split_once("/namespaces/").map(|(_, after)| after.matches('/').count());
        let is_collection = in_namespace.map_or_else(
            || path.ends_with("/nodes") || path.ends_with("/storageclasses"),
            |slashes| slashes == 1,
        );
        if !is_collection {
            return Err((404, "NotFound", format!("{path} not found")));
        }
        let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector="));
        let labels = |object: &Value, (name, value): (&str, &str)| {
            object["metadata"]["labels"][name] == value
        };
        let pairs: Vec<(&str, &str)> = selector
            .iter()
            .flat_map(|all| all.split(','))
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let of_kind = self
            .objects
            .iter()
            .filter(|(held, _)| held.rsplit_once('/').is_some_and(|(kind, _)| kind == path));
        // The continue token is the path of a page's last object.
        let after =
            query.split('&').find_map(|part| part.strip_prefix("continue=")).unwrap_or_default();
        let limit = query
            .split('&')
            .find_map(|part| part.strip_prefix("limit="))
            .and_then(|limit| limit.parse().ok());
        let mut of_kind = of_kind
            .filter(|(held, object)| {
                held.as_str() > after && pairs.iter().all(|pair| labels(object, *pair))
            })
            .peekable();
        let (mut items, mut last) = (Vec::new(), "");
        while let Some((held, object)) =
            of_kind.next_if(|_| limit.is_none_or(|limit: usize| items.len() < limit))
        {
            items.push(object.clone());
            last = held;
        }
        let next = if of_kind.peek().is_some() { last } else { "" };
        let listed = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string(), "continue": next}, "items": items});
        self.listed += items.len();
        Ok(listed)
    }

    /// The object that a write refers to, if its preconditions hold.
    fn check(&self, path: &str, write: &Value) -> Result<&Value, (u16, &'static str, String)> {
        let Some(object) = self.objects.get(path) else {
            return Err((404, "NotFound", format!("{path} not found")));
        };
        for field in ["uid", "resourceVersion"] {
            let wanted = &write["metadata"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err((409, "Conflict", format!("{path}: {field} is another")));
            }
        }
        Ok(object)
    }

    fn patch(&mut self, path: &str, query: &str, is_apply: bool, patch: Value) -> Answer {
        if is_apply && patch["metadata"].get("managedFields").is_some() {
            return Err((400, "BadRequest", "metadata.managedFields must be nil".to_owned()));
        }
        let before = match self.check(path, &patch) {
            Ok(before) => before.clone(),
            Err((404, ..)) if is_apply && patch["metadata"].get("uid").is_some() => {
                return Err((
                    409,
                    "Conflict",
                    "uid mismatch: no existing object was found".to_owned(),
                ));
            }
            Err((404, ..)) if is_apply => json!({}),
            Err(error) => return Err(error),
        };
        let mut after = before.clone();
        merge(&mut after, &patch, is_apply);
        if is_apply {
            after["metadata"]["managedFields"] = managed(query, "Apply");
        }
        if after == before { Ok(before) } else { Ok(self.put(path, after)) }
    }
}

fn managed(query: &str, operation: &str) -> Value {
    let manager = query.split('&').find_map(|part| part.strip_prefix("fieldManager="));
    json!([{"manager": manager.unwrap_or("unknown"), "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {}}])
}

/// Applies a merge patch, or server-side apply without other field managers: there owner references
/// are a map by uid, and nulls are ignored.
fn merge(into: &mut Value, patch: &Value, is_apply: bool) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null if is_apply => {}
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            Value::Array(owners) if is_apply && name == "ownerReferences" => {
                let mut all = into[name].as_array().cloned().unwrap_or_default();
                all.retain(|owner| owners.iter().all(|new| new["uid"] != owner["uid"]));
                all.extend(owners.iter().cloned());
                into[name] = Value::Array(all);
            }
            // What its one field manager does not apply again is gone.
            Value::Object(_) if is_apply && name == "data" => into[name] = value.clone(),
            _ => merge(&mut into[name], value, is_apply),
        }
    }
}
