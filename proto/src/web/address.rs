//! Addresses: the special-purpose blocks of IPv4 and IPv6, and what hides in the bits of an IPv6 address.
//!
//! The tables are the IANA special-purpose registries with the RFC of each row, multicast, and what is neither special
//! nor assigned for global unicast. Rows the registry calls globally reachable are refused too: they are anycast
//! services of the network one is in, sinks, or tunnels, and no web server lives there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Exceptions, denial};
use crate::message::Denial;

/// What to do instead, for every refused address.
const HINT: &str =
    "use a public address; an operator can allow a private one by CIDR and port in web.allowPrivate";

/// A block of addresses that is not for public servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<A> {
    /// First address.
    pub base: A,
    /// Length of the prefix in bits.
    pub prefix: u32,
    /// Last part of the rule's id: `web.address.<kind>`.
    pub kind: &'static str,
    /// What it is for.
    pub name: &'static str,
    /// Where that is written.
    pub source: &'static str,
}

const fn v4(
    base: [u8; 4],
    prefix: u32,
    kind: &'static str,
    name: &'static str,
    source: &'static str,
) -> Block<Ipv4Addr> {
    let [a, b, c, d] = base;
    Block { base: Ipv4Addr::new(a, b, c, d), prefix, kind, name, source }
}

const fn v6(
    base: [u16; 8],
    prefix: u32,
    kind: &'static str,
    name: &'static str,
    source: &'static str,
) -> Block<Ipv6Addr> {
    let [a, b, c, d, e, f, g, h] = base;
    Block { base: Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix, kind, name, source }
}

/// Narrow rows stand before the wide ones that hold them, so that the reason names the nearest.
static SPECIAL_V4: [Block<Ipv4Addr>; 27] = [
    v4([0, 0, 0, 0], 32, "unspecified", "this host", "RFC 1122"),
    v4([0, 0, 0, 0], 8, "unspecified", "this network", "RFC 791"),
    v4([10, 0, 0, 0], 8, "private", "private use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "shared", "shared address space", "RFC 6598"),
    v4([127, 0, 0, 0], 8, "loopback", "loopback", "RFC 1122"),
    v4([169, 254, 169, 254], 32, "metadata", "the metadata service of a cloud, link-local", "RFC 3927"),
    v4([169, 254, 0, 0], 16, "link-local", "link-local", "RFC 3927"),
    v4([172, 16, 0, 0], 12, "private", "private use", "RFC 1918"),
    v4([192, 0, 0, 0], 29, "reserved", "IPv4 service continuity prefix", "RFC 7335"),
    v4([192, 0, 0, 8], 32, "reserved", "IPv4 dummy address", "RFC 7600"),
    v4([192, 0, 0, 9], 32, "reserved", "port control protocol anycast", "RFC 7723"),
    v4([192, 0, 0, 10], 32, "reserved", "TURN anycast", "RFC 8155"),
    v4([192, 0, 0, 170], 31, "reserved", "NAT64 discovery", "RFC 8880"),
    v4([192, 0, 0, 0], 24, "reserved", "IETF protocol assignments", "RFC 6890"),
    v4([192, 0, 2, 0], 24, "documentation", "documentation (TEST-NET-1)", "RFC 5737"),
    v4([192, 31, 196, 0], 24, "reserved", "AS112, a sink", "RFC 7535"),
    v4([192, 52, 193, 0], 24, "reserved", "automatic multicast tunnelling", "RFC 7450"),
    v4([192, 88, 99, 0], 24, "reserved", "6to4 relay anycast", "RFC 7526"),
    v4([192, 168, 0, 0], 16, "private", "private use", "RFC 1918"),
    v4([192, 175, 48, 0], 24, "reserved", "AS112, a sink", "RFC 7534"),
    v4([198, 18, 0, 0], 15, "benchmarking", "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "documentation", "documentation (TEST-NET-2)", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "documentation", "documentation (TEST-NET-3)", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "multicast", "multicast", "RFC 5771"),
    v4([255, 255, 255, 255], 32, "broadcast", "limited broadcast", "RFC 919"),
    v4([240, 0, 0, 0], 4, "reserved", "reserved", "RFC 1112"),
    // A public number that every virtual machine of Azure reaches its host by.
    v4([168, 63, 129, 16], 32, "metadata", "the host of an Azure virtual machine", "Azure, WireServer"),
];

static SPECIAL_V6: [Block<Ipv6Addr>; 31] = [
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "loopback", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "unspecified", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "embedded", "an IPv4 address mapped into IPv6", "RFC 4291"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "embedded", "an IPv4 address translated into IPv6", "RFC 2765"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "embedded", "an IPv4-compatible address", "RFC 4291"),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "embedded", "an IPv4 address behind NAT64", "RFC 6052"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "embedded", "local-use NAT64", "RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "reserved", "discard-only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "reserved", "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "embedded", "Teredo tunnelling", "RFC 4380"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, "reserved", "port control protocol anycast", "RFC 7723"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128, "reserved", "TURN anycast", "RFC 8155"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128, "reserved", "DNS-SD registration anycast", "RFC 9665"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarking", "benchmarking", "RFC 5180"),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, "reserved", "automatic multicast tunnelling", "RFC 7450"),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, "reserved", "AS112, a sink", "RFC 7535"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "reserved", "ORCHID, no route", "RFC 4843"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "reserved", "ORCHIDv2, no route", "RFC 7343"),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, "reserved", "drone identifiers", "RFC 9374"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved", "IETF protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation", "documentation", "RFC 3849"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "embedded", "6to4 tunnelling", "RFC 3056"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "reserved", "AS112, a sink", "RFC 7534"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation", "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "reserved", "segment routing identifiers", "RFC 9602"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "metadata", "the metadata service of a cloud", "RFC 4193"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private", "unique-local", "RFC 4193"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local", "link-local", "RFC 4291"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private", "site-local", "RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "multicast", "RFC 4291"),
    // Everything the rows above leave of this is judged by GLOBAL_V6.
    v6([0, 0, 0, 0, 0, 0, 0, 0], 8, "reserved", "reserved by the IETF", "RFC 4291"),
];

/// The only part of IPv6 from which global unicast is assigned.
const GLOBAL_V6: Block<Ipv6Addr> =
    v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, "reserved", "global unicast", "RFC 4291");
/// What lies outside of it and in no row.
const UNASSIGNED_V6: Block<Ipv6Addr> =
    v6([0, 0, 0, 0, 0, 0, 0, 0], 0, "reserved", "not assigned for global unicast", "RFC 4291");

/// Whether an address may be connected to: `Ok` for globally routable unicast and for what `exceptions` lists.
///
/// An exception for a block that embeds IPv4 addresses (NAT64, 6to4) does not excuse what is embedded: that has to pass
/// by itself.
///
/// # Errors
/// The rule `web.address.*`, the block and what to do instead.
pub fn judge_address(address: IpAddr, port: u16, exceptions: &Exceptions) -> Result<(), Denial> {
    let Some((kind, name, source)) = special_block(address) else { return Ok(()) };
    if let Some(prefix) = exceptions.widest(address, port)
        && embedded(address, prefix).into_iter().all(|inner| passes(inner, port, exceptions))
    {
        return Ok(());
    }
    Err(denial(
        &format!("web.address.{kind}"),
        format!("{address} is not a public address: {name} ({source})"),
        HINT,
    ))
}

fn passes(address: Ipv4Addr, port: u16, exceptions: &Exceptions) -> bool {
    let address = IpAddr::V4(address);
    special_block(address).is_none() || exceptions.cover(address, port)
}

/// Kind, name and source of what makes an address not public. `None`: globally routable unicast.
#[must_use]
pub fn special_block(address: IpAddr) -> Option<(&'static str, &'static str, &'static str)> {
    match address {
        IpAddr::V4(address) => SPECIAL_V4
            .iter()
            .find(|block| in_v4(address, block))
            .map(|block| (block.kind, block.name, block.source)),
        IpAddr::V6(address) => SPECIAL_V6
            .iter()
            .find(|block| in_v6(address, block))
            .or_else(|| (!in_v6(address, &GLOBAL_V6)).then_some(&UNASSIGNED_V6))
            .map(|block| (block.kind, block.name, block.source))
            .or_else(|| isatap(address)),
    }
}

/// A tunnel end point below any prefix: its last half spells the IPv4 address it delivers to (RFC 5214).
fn isatap(address: Ipv6Addr) -> Option<(&'static str, &'static str, &'static str)> {
    let inner = isatap_inner(address)?;
    special_block(IpAddr::V4(inner))
        .map(|_| ("embedded", "an ISATAP tunnel to a private IPv4 address", "RFC 5214"))
}

fn isatap_inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, _, _, _, flags, mark, high, low] = address.segments();
    // Universal and group bit in either state.
    (mark == 0x5efe && flags & !0x0300 == 0).then(|| from_halves(high, low))
}

/// The IPv4 addresses an IPv6 address may stand for, where its form says so. `prefix` is the length of the exception
/// that lets it in.
fn embedded(address: IpAddr, prefix: u32) -> Vec<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let one = match [a, b, c, d, e, f] {
        // `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0] if g == 0 && h <= 1 => None,
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            Some(from_halves(g, h))
        }
        [0x64, 0xff9b, 1, _, _, _] => return behind_local_nat64(address, prefix),
        [0x2002, high, low, ..] => Some(from_halves(high, low)),
        // Teredo writes the client's address inverted.
        [0x2001, 0, ..] => Some(from_halves(!g, !h)),
        _ => isatap_inner(address),
    };
    one.into_iter().collect()
}

/// Local-use NAT64 puts the IPv4 address where the length of the operator's prefix says, and what follows it is not
/// looked at (RFC 6052, 2.2). The operator's prefix is at least as long as what the exception lists, so every place from
/// there on counts. One that reads `0.x.x.x` is none: that is where the zeros around a shorter or longer form lie, and no
/// translator delivers there.
fn behind_local_nat64(address: Ipv6Addr, prefix: u32) -> Vec<Ipv4Addr> {
    let bits = address.to_bits();
    // Bits 64 to 71 are left out of every form that reaches across them.
    let joined = bits >> 64 << 64 | (bits & (u128::MAX >> 72)) << 8;
    let at = |value: u128, first: u32| {
        let [.., a, b, c, d] = (value << first >> 96).to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    let forms = [(48, at(joined, 48)), (56, at(joined, 56)), (64, at(joined, 64)), (96, at(bits, 96))];
    let read: Vec<Ipv4Addr> = forms
        .into_iter()
        .filter(|(length, inner)| *length >= prefix.min(96) && inner.octets().first() != Some(&0))
        .map(|(_, inner)| inner)
        .collect();
    if read.is_empty() { vec![Ipv4Addr::UNSPECIFIED] } else { read }
}

fn from_halves(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

fn in_v4(address: Ipv4Addr, block: &Block<Ipv4Addr>) -> bool {
    in_block_v4(address, block.base, block.prefix)
}

fn in_v6(address: Ipv6Addr, block: &Block<Ipv6Addr>) -> bool {
    in_block_v6(address, block.base, block.prefix)
}

/// Whether the first `prefix` bits agree. A prefix longer than an address counts as its length.
pub(super) fn in_block_v4(address: Ipv4Addr, base: Ipv4Addr, prefix: u32) -> bool {
    let differing = address.to_bits() ^ base.to_bits();
    differing.leading_zeros() >= prefix.min(Ipv4Addr::BITS)
}

/// As [`in_block_v4`].
pub(super) fn in_block_v6(address: Ipv6Addr, base: Ipv6Addr, prefix: u32) -> bool {
    let differing = address.to_bits() ^ base.to_bits();
    differing.leading_zeros() >= prefix.min(Ipv6Addr::BITS)
}
