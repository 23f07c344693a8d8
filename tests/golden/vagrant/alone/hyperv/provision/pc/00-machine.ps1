$ErrorActionPreference = 'Stop'
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
  $path = "$env:SystemRoot\System32\drivers\etc\hosts"
  $others = Get-Content -LiteralPath $path -ErrorAction SilentlyContinue | Where-Object { $_ -notlike '*# labctl' }
  @($others) + @($Lines | ForEach-Object { "$_ # labctl" }) | Set-Content -LiteralPath $path -Encoding ASCII
}
Close-Management '02-24-33-A3-42-94'
Set-LabHosts @()
