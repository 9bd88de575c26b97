//! What identifies a VM to the hypervisor and on its network.

use contract::{MacAddress, VmUuid};
use serde::{Deserialize, Serialize};

/// QEMU's own prefix for network cards.
const MAC_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// A VM's UUID and the MAC address of its network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its UUID, of version 4.
    pub uuid: VmUuid,
    /// The MAC address of its network card, `52:54:00:…`.
    pub mac: MacAddress,
}

impl Identity {
    /// An identity from 128 random bits: a UUID of version 4, and a MAC address from its end.
    pub fn from_random(bits: u128) -> Identity {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0b11 << 62;
        let bits = (bits & !VERSION & !VARIANT) | (4 << 76) | (0b10 << 62);
        let [.., a, b, c] = bits.to_be_bytes();
        let [x, y, z] = MAC_PREFIX;
        let uuid = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        );
        let mac = format!("{x:02x}:{y:02x}:{z:02x}:{a:02x}:{b:02x}:{c:02x}");
        Identity {
            uuid: VmUuid::new(uuid).expect("128 bits in the form of a UUID"),
            mac: MacAddress::new(mac).expect("a unicast prefix and three octets"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_the_form_of_a_random_uuid() {
        let all = Identity::from_random(u128::MAX);
        assert_eq!(all.uuid.as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(all.mac.as_str(), "52:54:00:ff:ff:ff");
        let none = Identity::from_random(0x01_0203);
        assert_eq!(none.uuid.as_str(), "00000000-0000-4000-8000-000000010203");
        assert_eq!(none.mac.as_str(), "52:54:00:01:02:03");
    }
}
