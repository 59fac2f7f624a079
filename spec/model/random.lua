-- Random numbers that are the same on every Lua: multiplicative congruential, modulus 2^31 - 1,
-- exact in doubles.

local floor = math.floor

local Random = {}
Random.__index = Random

--- An integer from 0 to n - 1.
function Random:below(n)
  self.state = self.state * 48271 % 2147483647
  return floor(self.state % n)
end

--- An integer from a to b.
function Random:between(a, b)
  return a + self:below(b - a + 1)
end

--- True in one of n cases.
function Random:one_in(n)
  return self:below(n) == 0
end

function Random:pick(list)
  return list[self:below(#list) + 1]
end

--- A key of {{key, weight}, ...}, each as often as it weighs.
function Random:weighted(list)
  local sum = 0
  for _, entry in ipairs(list) do sum = sum + entry[2] end
  local at = self:below(sum)
  for _, entry in ipairs(list) do
    at = at - entry[2]
    if at < 0 then return entry[1] end
  end
end

local function new(seed)
  local self = setmetatable({ state = floor(seed % 2147483646) + 1 }, Random)
  for _ = 1, 8 do self:below(2) end -- near seeds begin alike
  return self
end

return new
