"""The Hypervisor port on libvirt. libvirt's own word for a VM, *domain*, stays in here."""
