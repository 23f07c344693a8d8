"""Windows guests: what is done in them, as PowerShell. Vagrant runs it over WinRM with an administrator's rights."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from labctl.plan.model import InterfacePlan, MachinePlan, RoutePlan
from labctl.spec.model import FileStep, ScriptStep, UserSpec

SUFFIX = ".ps1"
UPLOAD = "C:/Windows/Temp/labctl-upload"

# PowerShell reads a script without this mark in the machine's own code page (about_Character_Encoding).
_MARK = "\ufeff"
_STRICT = "$ErrorActionPreference = 'Stop'\n"
# PowerShell takes typographic quotation marks for the plain one (language specification, 2.3.5.2).
_QUOTES = re.compile("['\u2018\u2019\u201a\u201b]")

_FUNCTIONS = """\
# NICs are known by their MAC addresses. The management NIC stays as the box has it, but for default route and resolver.
function Find-Nic([string] $Mac) {
  $nic = Get-NetAdapter | Where-Object { $_.MacAddress -eq $Mac }
  if (-not $nic) { throw "labctl: no network adapter has the address $Mac" }
  $nic
}
function Set-LabNic([string] $Mac, [string] $Name, [string[]] $Addresses) {
  $nic = Find-Nic $Mac
  if ($nic.Name -ne $Name) { Rename-NetAdapter -Name $nic.Name -NewName $Name }
  Set-NetIPInterface -InterfaceIndex $nic.ifIndex -AddressFamily IPv4 -Dhcp Disabled
  Set-NetIPInterface -InterfaceIndex $nic.ifIndex -AddressFamily IPv6 -Dhcp Disabled -RouterDiscovery Disabled
  Get-NetIPAddress -InterfaceIndex $nic.ifIndex -PrefixOrigin Manual -ErrorAction SilentlyContinue |
    Remove-NetIPAddress -Confirm:$false
  foreach ($address in $Addresses) {
    $ip, $length = $address -split '/'
    New-NetIPAddress -InterfaceIndex $nic.ifIndex -IPAddress $ip -PrefixLength $length | Out-Null
  }
}
function Set-LabRoute([string] $Target, [string] $Gateway, [string] $Mac) {
  Get-NetRoute -DestinationPrefix $Target -ErrorAction SilentlyContinue | Remove-NetRoute -Confirm:$false
  New-NetRoute -DestinationPrefix $Target -NextHop $Gateway -InterfaceIndex (Find-Nic $Mac).ifIndex | Out-Null
}
function Close-Management([string] $Mac) {
  $nic = Find-Nic $Mac
  Set-NetIPInterface -InterfaceIndex $nic.ifIndex -IgnoreDefaultRoutes Enabled
  Set-DnsClientServerAddress -InterfaceIndex $nic.ifIndex -ServerAddresses '127.0.0.1'
}
function Set-LabUser([string] $Name, [string] $Password, [string[]] $Groups) {
  if ($Password) {
    $secret = ConvertTo-SecureString $Password -AsPlainText -Force
  }
  $user = Get-LocalUser -Name $Name -ErrorAction SilentlyContinue
  if (-not $user -and $Password) { $user = New-LocalUser -Name $Name -Password $secret }
  elseif (-not $user) { $user = New-LocalUser -Name $Name -NoPassword }
  elseif ($Password) { $user | Set-LocalUser -Password $secret }
  foreach ($group in $Groups) {
    if (-not (Get-LocalGroup -Name $group -ErrorAction SilentlyContinue)) { New-LocalGroup -Name $group | Out-Null }
    if (-not (Get-LocalGroupMember -Group $group -Member $Name -ErrorAction SilentlyContinue)) {
      Add-LocalGroupMember -Group $group -Member $Name
    }
  }
}
function Set-LabHosts([string[]] $Lines) {
  $path = "$env:SystemRoot\\System32\\drivers\\etc\\hosts"
  $others = Get-Content -LiteralPath $path -ErrorAction SilentlyContinue | Where-Object { $_ -notlike '*# labctl' }
  @($others) + @($Lines | ForEach-Object { "$_ # labctl" }) | Set-Content -LiteralPath $path -Encoding ASCII
}
"""


def quote(text: str) -> str:
    """A PowerShell literal in which nothing is expanded."""
    return "'" + _QUOTES.sub(lambda mark: mark.group() * 2, text) + "'"


def script(body: str) -> str:
    """A PowerShell script file that stops at its first error."""
    return _MARK + _STRICT + body


def set_up(machine: MachinePlan) -> str:
    """The script that gives a guest its addresses, routes, hosts and accounts, and closes its management NIC."""
    macs = {interface.device: interface.mac for interface in machine.interfaces}
    hosts = ", ".join(quote(" ".join((address, *names))) for address, names in machine.hosts)
    lines = [
        *(_nic(interface) for interface in machine.interfaces),
        *(_route(route, macs[route.device]) for route in machine.routes),
        f"Close-Management {quote(_mac(machine.management_mac))}",
        f"Set-LabHosts @({hosts})",
        *(_user(user) for user in machine.users),
    ]
    return script(_FUNCTIONS + "\n".join(lines) + "\n")


def write_file(step: FileStep) -> str:
    """The script that writes a file's content, as UTF-8."""
    return script(_target(step.target) + f"[IO.File]::WriteAllText($target, {quote(step.content or '')})\n")


def place_file(step: FileStep) -> str:
    """The script that moves an uploaded file to its place."""
    return script(_move(step.target))


def run_script(number: int, step: ScriptStep) -> str:
    """The script that runs an uploaded one under its own name, with arguments that are each taken as they are."""
    path = f"C:/ProgramData/labctl/steps/{number:02}/{PurePosixPath(step.source).name}"
    run = " ".join(["&", "$target", *map(quote, step.args)])
    return script(_move(path) + f"{run}\nif ($LASTEXITCODE) {{ exit $LASTEXITCODE }}\n")


def _move(target: str) -> str:
    return _target(target) + f"Move-Item -Force -LiteralPath {quote(UPLOAD)} -Destination $target\n"


def _target(path: str) -> str:
    return (
        f"$target = {quote(path)}\nNew-Item -ItemType Directory -Force -Path (Split-Path -Parent $target) | Out-Null\n"
    )


def _nic(interface: InterfacePlan) -> str:
    addresses = ", ".join(quote(str(a)) for a in (interface.address, interface.address6) if a is not None)
    return f"Set-LabNic {quote(_mac(interface.mac))} {quote(interface.device)} @({addresses})"


def _route(route: RoutePlan, mac: str) -> str:
    return f"Set-LabRoute {quote(str(route.target))} {quote(str(route.gateway))} {quote(_mac(mac))}"


def _user(user: UserSpec) -> str:
    return f"Set-LabUser {quote(user.name)} {quote(user.password or '')} @({', '.join(map(quote, user.groups))})"


def _mac(mac: str) -> str:
    """A MAC address as ``Get-NetAdapter`` prints it."""
    return mac.replace(":", "-").upper()
