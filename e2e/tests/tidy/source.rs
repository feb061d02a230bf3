//! Parses a Rust file: its modules, names and imports, without test code.

use std::path::PathBuf;

use proc_macro2::{Spacing, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token, UseTree, Visibility};

/// The declarations of a module, in a file or in braces.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// Its own items: types, functions, traits, constants.
    pub(crate) items: Vec<String>,
    /// `mod x;`, with the file that `#[path]` names.
    pub(crate) files: Vec<(String, Option<PathBuf>)>,
    /// `mod x { .. }`
    pub(crate) inline: Vec<(String, Declared)>,
    /// `use`, including those inside functions.
    pub(crate) uses: Vec<Use>,
    /// Every other path in the code.
    pub(crate) paths: Vec<Named>,
}

/// One leaf of a `use`.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) path: Named,
    /// The name in this module; `None` for `*`.
    pub(crate) alias: Option<String>,
    /// Whether it is a re-export: `pub use`, `pub(crate) use`.
    pub(crate) handed_on: bool,
}

/// A path as written.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// The declarations in the text of a file.
pub(crate) fn read(text: &str) -> syn::Result<Declared> {
    let file = syn::parse_file(text)?;
    let mut reader = Reader::default();
    if !of_tests(&file.attrs) {
        file.items.iter().for_each(|item| reader.visit_item(item));
    }
    Ok(reader.0)
}

/// Whether the item is in test builds only: `#[cfg(test)]`, `#[cfg(any(test, fuzzing))]`.
fn of_tests(attributes: &[Attribute]) -> bool {
    let conditions = attributes.iter().filter(|a| a.path().is_ident("cfg"));
    conditions.filter_map(|a| a.parse_args::<Meta>().ok()).any(|meta| holds(&meta) == Some(false))
}

/// Whether a condition holds in a product build; `None` if unknown.
fn holds(meta: &Meta) -> Option<bool> {
    let inner = |list: &syn::MetaList| -> Vec<Option<bool>> {
        let all = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        all.map(|all| all.iter().map(holds).collect()).unwrap_or_default()
    };
    match meta {
        Meta::Path(path) if path.is_ident("test") || path.is_ident("fuzzing") => Some(false),
        Meta::List(list) if list.path.is_ident("not") => {
            inner(list).first().copied().flatten().map(|known| !known)
        }
        Meta::List(list) if list.path.is_ident("any") => {
            inner(list).iter().all(|known| *known == Some(false)).then_some(false)
        }
        Meta::List(list) if list.path.is_ident("all") => {
            inner(list).contains(&Some(false)).then_some(false)
        }
        _ => None,
    }
}

#[derive(Default)]
struct Reader(Declared);

impl Reader {
    fn add_use(&mut self, tree: &UseTree, before: &[String], handed_on: bool) {
        let mut leaf = |segments: Vec<String>, alias: Option<String>, line: usize| {
            self.0.uses.push(Use { path: Named { segments, line }, alias, handed_on });
        };
        let with = |name: &str| before.iter().cloned().chain([name.to_owned()]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => {
                self.add_use(&path.tree, &with(&path.ident.to_string()), handed_on)
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(tree, before, handed_on))
            }
            UseTree::Glob(glob) => leaf(before.to_vec(), None, glob.star_token.span.start().line),
            UseTree::Name(name) if name.ident == "self" => {
                leaf(before.to_vec(), before.last().cloned(), name.ident.span().start().line);
            }
            UseTree::Name(name) => {
                let name_text = name.ident.to_string();
                leaf(with(&name_text), Some(name_text), name.ident.span().start().line);
            }
            UseTree::Rename(rename) => {
                let segments = if rename.ident == "self" {
                    before.to_vec()
                } else {
                    with(&rename.ident.to_string())
                };
                leaf(segments, Some(rename.rename.to_string()), rename.ident.span().start().line);
            }
        }
    }

    /// The paths in a macro's tokens. The grammar is unknown, so each run of names joined by `::`
    /// counts as a path.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
        let joined = |at: usize| {
            matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':' && p.spacing() == Spacing::Joint)
                && is(at + 1, ':')
        };
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                // Skip `.field`, but not the end of a range.
                TokenTree::Ident(_)
                    if at > 0 && is(at - 1, '.') && !(at > 1 && is(at - 2, '.')) => {}
                TokenTree::Ident(first) => {
                    let mut segments = vec![first.to_string()];
                    while joined(at + 1)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                    {
                        segments.push(next.to_string());
                        at += 3;
                    }
                    self.0.paths.push(Named { segments, line: first.span().start().line });
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn add_item(&mut self, name: &syn::Ident) {
        self.0.items.push(name.to_string());
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if of_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Const(i) => self.add_item(&i.ident),
            Item::Enum(i) => self.add_item(&i.ident),
            Item::Fn(i) => self.add_item(&i.sig.ident),
            Item::Static(i) => self.add_item(&i.ident),
            Item::Struct(i) => self.add_item(&i.ident),
            Item::Trait(i) => self.add_item(&i.ident),
            Item::Type(i) => self.add_item(&i.ident),
            Item::Union(i) => self.add_item(&i.ident),
            Item::Macro(i) => i.ident.iter().for_each(|name| self.add_item(name)),
            Item::Mod(module) => {
                let name = module.ident.to_string();
                match &module.content {
                    Some((_, items)) => {
                        let mut inner = Reader::default();
                        items.iter().for_each(|item| inner.visit_item(item));
                        self.0.inline.push((name, inner.0));
                    }
                    None => self.0.files.push((name, path_attribute(&module.attrs))),
                }
                return;
            }
            Item::Use(item) => {
                self.add_use(&item.tree, &[], !matches!(item.vis, Visibility::Inherited));
                return;
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[Attribute] = match item {
            syn::ImplItem::Const(i) => &i.attrs,
            syn::ImplItem::Fn(i) => &i.attrs,
            syn::ImplItem::Type(i) => &i.attrs,
            _ => &[],
        };
        if !of_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !of_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !of_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
        self.0.paths.push(Named { segments, line });
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        self.visit_path(&invoked.path);
        self.add_tokens(invoked.tokens.clone());
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<PathBuf> {
    let attribute = attributes.iter().find(|a| a.path().is_ident("path"))?;
    match &attribute.meta.require_name_value().ok()?.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(file), .. }) => Some(file.value().into()),
        _ => None,
    }
}
