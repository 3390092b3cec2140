// Package intercept writes, reads back and explains the kernel's rules that bring an application's traffic to the proxy.
//
// A [Config] says whose traffic goes where. [Build] turns it into [Table]
// values, which are plain data: they can be printed, compared, walked by a
// packet ([Walk]) and written to the kernel over netlink. What is read back
// from the kernel has the same form, so that a question about a packet is
// answered by what is in force and not by what was meant.
//
// Order and meaning are those of `consul connect redirect-traffic`
// (hashicorp/consul/sdk/iptables), in nftables, for IPv4 and IPv6 at once, in
// one transaction and in a table of our own.
package intercept
