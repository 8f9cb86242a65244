package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// Networks is a list of networks, as CIDR prefixes with commas between them; a single address is a network of one.
type Networks []netip.Prefix

// UnmarshalText reads Networks.
func (n *Networks) UnmarshalText(text []byte) error {
	*n = nil
	for part := range strings.SplitSeq(string(text), ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			address, addressErr := netip.ParseAddr(part)
			if addressErr != nil || address.Zone() != "" {
				return fmt.Errorf("%q is not a network such as 10.0.0.0/8", part)
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 { // as Contains has addresses
			prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
		}
		*n = append(*n, prefix.Masked())
	}
	return nil
}

// Contains reports whether an address lies in one of the networks. An IPv4 address written as IPv6 is the same address.
func (n Networks) Contains(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	for _, prefix := range n {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}
