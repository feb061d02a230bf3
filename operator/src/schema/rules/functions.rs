//! Kubernetes' additions to CEL that our rules use: quantities (`quantity`, `compareTo`,
//! `isInteger`, `asApproximateFloat`) and addresses (`isIP`), as in
//! `k8s.io/apiserver/pkg/cel/library`.

use std::any::Any;
use std::net::{Ipv4Addr, Ipv6Addr};

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use weir_crds::Quantity;

/// An environment with CEL's own functions and these.
pub(super) fn environment() -> Env {
    let mut environment = Env::stdlib();
    // A name that CEL already has would be refused here, and a test would refuse the rules that use
    // it.
    let declared = environment.add_extension(declare);
    debug_assert_eq!(declared, Ok(()));
    environment
}

fn declare(environment: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(environment, fn quantity: (CelString<'_>) -> Result<Amount>)?;
    cel::add_member_overload!(environment, fn compare_to: (Amount, Amount) -> CelInt)?;
    cel::add_member_overload!(environment, fn is_integer: (Amount) -> CelBool)?;
    cel::add_member_overload!(environment, fn as_approximate_float: (Amount) -> CelDouble)?;
    cel::add_overload!(environment, fn is_ip: (CelString<'_>) -> CelBool, name = "isIP")
}

static AMOUNT: Type = Type::new_unspecified_type("kubernetes.Quantity");

/// A quantity as a CEL value, in billionths of a unit. Kubernetes also allows negative ones; none
/// of our fields does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Amount {
    parts: u128,
    is_whole: bool,
}

impl Val for Amount {
    fn get_type(&self) -> &Type {
        <Self as Val>::cel_type()
    }

    fn cel_type() -> &'static Type {
        &AMOUNT
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| other.parts == self.parts)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Amount {}

fn quantity(text: &CelString<'_>) -> Result<Amount, ExecutionError> {
    let quantity = Quantity(text.inner().to_owned());
    let parts = quantity
        .parts()
        .ok_or_else(|| ExecutionError::function_error("quantity", "no quantity of zero or more"))?;
    Ok(Amount { parts, is_whole: quantity.is_whole() })
}

fn compare_to(left: &Amount, right: &Amount) -> CelInt {
    CelInt::from(left.parts.cmp(&right.parts) as i64)
}

fn is_integer(amount: &Amount) -> CelBool {
    CelBool::from(amount.is_whole)
}

/// The value in units; digits beyond those of a double are lost.
#[expect(clippy::cast_precision_loss, reason = "the function is approximate")]
fn as_approximate_float(amount: &Amount) -> CelDouble {
    CelDouble::from(amount.parts as f64 / 1e9)
}

/// Whether a text is an address of either family. As in Kubernetes, an IPv4-mapped IPv6 address or
/// one with a zone is not.
fn is_ip(text: &CelString<'_>) -> CelBool {
    let text = text.inner();
    let is_ipv6 = text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_none());
    CelBool::from(is_ipv6 || text.parse::<Ipv4Addr>().is_ok())
}
